//! Capabilities: dropping the policy's list and emptying the sets that survive an exec.

use capctl::caps::{Cap, CapState, ambient, bounding};
use std::io;

fn os(e: capctl::Error) -> io::Error {
    io::Error::from_raw_os_error(e.code())
}

/// Takes the named capabilities (kernel names without `CAP_`) out of the bounding, inheritable and ambient sets.
/// The permitted set follows at the next exec (capabilities(7)).
///
/// # Errors
/// `InvalidInput` for a name the kernel's headers do not have; else what prctl(2) or capset(2) say.
pub fn drop_for_exec(names: &[&str]) -> io::Result<()> {
    for name in names {
        let cap: Cap = format!("cap_{name}")
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no capability is called {name}")))?;
        bounding::ensure_dropped(cap).map_err(os)?;
    }
    bounding::clear_unknown().map_err(os)?;
    let mut state = CapState::get_current().map_err(os)?;
    state.inheritable.clear();
    state.set_current().map_err(os)?;
    ambient::clear().map_err(os)
}

/// No capability at all from here on, not even by exec of a set-uid program.
///
/// # Errors
/// What prctl(2) or capset(2) say.
pub fn drop_all() -> io::Result<()> {
    capctl::prctl::set_no_new_privs().map_err(os)?;
    ambient::clear().map_err(os)?;
    CapState::empty().set_current().map_err(os)
}

/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// What prctl(2) says.
pub fn no_new_privs() -> io::Result<()> {
    capctl::prctl::set_no_new_privs().map_err(os)
}

/// Keeps the named capabilities (kernel names without `CAP_`) and gives up every other one for good: nothing that is
/// executed from here on has any.
///
/// # Errors
/// `InvalidInput` for a name the kernel's headers do not have; else what prctl(2) or capset(2) say.
pub fn keep_only(names: &[&str]) -> io::Result<()> {
    let mut kept = CapState::empty();
    for name in names {
        let cap: Cap = format!("cap_{name}")
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("no capability is called {name}")))?;
        kept.permitted.add(cap);
        kept.effective.add(cap);
    }
    capctl::prctl::set_no_new_privs().map_err(os)?;
    for cap in Cap::iter() {
        bounding::ensure_dropped(cap).map_err(os)?;
    }
    bounding::clear_unknown().map_err(os)?;
    ambient::clear().map_err(os)?;
    kept.set_current().map_err(os)
}
