//! Who may use the API: root, and members of the group `vz`. Told by the kernel (unix(7), SO_PEERCRED and
//! SO_PEERGROUPS), never by the client.

use super::Refusal;
use axum::http::StatusCode;
use nix::unistd::Group;
use tokio::net::UnixStream;
use vz_types::ExitCode;

/// The group whose members may use the API.
pub const GROUP: &str = "vz";

/// Who the other end of `stream` is, for the record.
pub fn name(stream: &UnixStream) -> String {
    stream.peer_cred().map_or_else(|_| "unknown".to_owned(), |cred| format!("uid {}", cred.uid()))
}

/// Answers the reason when the other end of `stream` may not use the API.
pub fn refuse(stream: &UnixStream) -> Option<String> {
    let cred = match stream.peer_cred() {
        Ok(cred) => cred,
        Err(e) => return Some(format!("the kernel does not say who you are: {e}")),
    };
    if cred.uid() == 0 {
        return None;
    }
    let group = match Group::from_name(GROUP) {
        Ok(Some(group)) => group.gid.as_raw(),
        _ => return Some(format!("uid {} is not root, and this host has no group `{GROUP}`", cred.uid())),
    };
    let member = cred.gid() == group || vz_sys::peer::groups(stream).is_ok_and(|g| g.contains(&group));
    (!member).then(|| format!("uid {} is neither root nor in the group `{GROUP}`", cred.uid()))
}

/// What a refused peer is answered, whatever it asks.
pub fn forbidden(reason: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        ExitCode::PermissionDenied,
        format!("this vzd does not serve you: {reason}"),
        "run it as root, or have yourself added to the group: usermod -aG vz USER",
    )
}
