//! Routes that change containers: each asks for an operation, and answers when that has ended, or at once with
//! `?background=true`.

use super::{
    Refusal, convert,
    extract::{Asker, Body, Name, Options},
    handlers::{Answer, Shared, ctid, inside, look},
    operations,
};
use crate::{
    manager::Manager,
    monitor::booted::{self, Asker as BootAsker, NotBooted},
    ops::{self, Ask, Asked, Handle, Ops, Snapshot},
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use vz_api::wire;
use vz_types::{Ctid, ExitCode, Fact, fact::Booted};

type Changed = Result<Response, Refusal>;

/// What asking for a change comes to at once.
pub(super) enum Begun {
    /// The answer: there was nothing to do, or it goes on behind.
    Answered(Response),
    /// It is to be waited for.
    Waits(Arc<Handle>),
}

/// Asks for a change, where it may look things up, in the name of who asks and with their number.
pub(super) async fn begun(ops: &Arc<Ops>, who: Asker, how: wire::How, asked: Ask) -> Result<Begun, Refusal> {
    let asked = asked.by(who.name).numbered(who.operation);
    let asked = if how.background { asked.kept() } else { asked };
    let (of, ctid) = (ops.clone(), asked.subject.ctid());
    match ops.pools.look.run(move || of.ask(asked)).await.map_err(|_| inside())?? {
        Asked::AlreadySo(fact) => {
            let done = wire::Done { ctid: ctid.map(Ctid::get), facts: vec![fact], ..wire::Done::default() };
            Ok(Begun::Answered(Json(done).into_response()))
        }
        Asked::Operation(handle) if how.background => {
            Ok(Begun::Answered((StatusCode::ACCEPTED, Json(operations::live(&handle))).into_response()))
        }
        Asked::Operation(handle) => Ok(Begun::Waits(handle)),
    }
}

/// Asks, and waits for the end unless it is to go on behind.
pub(super) async fn change(ops: &Arc<Ops>, who: Asker, how: wire::How, asked: Ask) -> Changed {
    let number = who.operation;
    let handle = match begun(ops, who, how, asked).await? {
        Begun::Answered(answer) => return Ok(answer),
        Begun::Waits(handle) => handle,
    };
    let last = handle.ended().await;
    let mut done = ended(&handle, &last)?;
    if number.is_some_and(|n| n != handle.id) {
        done.facts.insert(0, Fact::Joined { operation: handle.id });
    }
    // What follows it at once belongs to the answer.
    let mut then = last.then;
    while let Some(next) = then {
        let last = next.ended().await;
        let more = ended(&next, &last)?;
        done.facts.retain(|f| !matches!(f, Fact::Follows { operation, .. } if *operation == next.id));
        done.facts.extend(more.facts);
        done.steps.extend(more.steps);
        then = last.then;
    }
    Ok(Json(done).into_response())
}

/// What an operation that has ended comes to for its client.
fn ended(handle: &Handle, last: &Snapshot) -> Result<wire::Done, Refusal> {
    if let Some(failure) = &last.failure {
        return Err(Refusal::from(failure.clone()).of(handle.id));
    }
    Ok(wire::Done {
        ctid: handle.subject.ctid().map(Ctid::get),
        operation: Some(handle.id.to_string()),
        facts: last.facts.clone(),
        steps: last.times.iter().map(|(name, us)| wire::StepTime { name: name.clone(), us: *us }).collect(),
        ..wire::Done::default()
    })
}

/// Reads a request: at once, unless that takes a processor for long.
async fn read<T: Send + 'static>(
    ops: &Arc<Ops>,
    costly: bool,
    read: impl FnOnce() -> crate::error::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match costly {
        true => look(ops, move |_| read()).await,
        false => Ok(read()?),
    }
}

/// Make a container.
#[utoipa::path(post, path = "/v1/cts", request_body = wire::CreateRequest,
    params(("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn create(
    State(ops): Shared,
    who: Asker,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::CreateRequest>,
) -> Changed {
    let default = ops.m.config.defaults.ostemplate.clone();
    let costly = convert::is_costly(&request.settings);
    let spec = read(&ops, costly, move || convert::create(request, default.as_ref())).await?;
    change(&ops, who, how, ops::create(spec)).await
}

/// Change a container.
#[utoipa::path(patch, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    request_body = wire::SetRequest,
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn set(
    State(ops): Shared,
    who: Asker,
    Name(ct): Name,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::SetRequest>,
) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    let spec = read(&ops, convert::is_costly(&request.settings), move || convert::set(request)).await?;
    change(&ops, who, how, ops::set(ctid, spec)).await
}

/// Remove a container; its configuration stays as `.destroyed`.
#[utoipa::path(delete, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn destroy(State(ops): Shared, who: Asker, Name(ct): Name, Options(how): Options<wire::How>) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    change(&ops, who, how, ops::destroy(ctid)).await
}

/// Run a container.
#[utoipa::path(post, path = "/v1/cts/{ct}/start", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    request_body = wire::StartRequest,
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn start(
    State(ops): Shared,
    who: Asker,
    Name(ct): Name,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::StartRequest>,
) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    let changed = change(&ops, who, how, ops::start(ctid, request.force)).await?;
    and_booted(&ops, ctid, request.wait && !how.background, changed).await
}

/// Stop it if it runs, then run it.
#[utoipa::path(post, path = "/v1/cts/{ct}/restart", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    request_body = wire::RestartRequest,
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn restart(
    State(ops): Shared,
    who: Asker,
    Name(ct): Name,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::RestartRequest>,
) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    let changed = change(&ops, who, how, ops::restart(ctid, request.force, request.fast)).await?;
    and_booted(&ops, ctid, request.wait && !how.background, changed).await
}

/// End a container.
#[utoipa::path(post, path = "/v1/cts/{ct}/stop", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    request_body = wire::StopRequest,
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn stop(
    State(ops): Shared,
    who: Asker,
    Name(ct): Name,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::StopRequest>,
) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    change(&ops, who, how, ops::stop(ctid, convert::stop(&request)?)).await
}

/// Show a stopped container's files on the host.
#[utoipa::path(post, path = "/v1/cts/{ct}/mount", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn mount(State(ops): Shared, who: Asker, Name(ct): Name, Options(how): Options<wire::How>) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    change(&ops, who, how, ops::mount(ctid)).await
}

/// Hide them again.
#[utoipa::path(post, path = "/v1/cts/{ct}/umount", params(("ct" = String, Path, description = "CTID or name"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn umount(State(ops): Shared, who: Asker, Name(ct): Name, Options(how): Options<wire::How>) -> Changed {
    let ctid = ctid(&ops, ct).await?;
    change(&ops, who, how, ops::umount(ctid)).await
}

/// Wait until a running container has reached its default runlevel; at most three minutes.
#[utoipa::path(get, path = "/v1/cts/{ct}/boot", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn boot(State(ops): Shared, Name(ct): Name) -> Answer<wire::Done> {
    let ctid = ctid(&ops, ct).await?;
    let booted = booted(&ops, ctid).await?;
    let facts = vec![Fact::Booted { booted }];
    Ok(Json(wire::Done { ctid: Some(ctid.get()), facts, ..wire::Done::default() }))
}

/// The same answer once it has booted.
async fn and_booted(ops: &Arc<Ops>, ctid: Ctid, wait: bool, changed: Response) -> Changed {
    if !wait {
        return Ok(changed);
    }
    let booted = booted(ops, ctid).await?;
    let (parts, body) = changed.into_parts();
    let bytes = axum::body::to_bytes(body, super::extract::MAX_BODY).await.map_err(|_| inside())?;
    let mut done: wire::Done = serde_json::from_slice(&bytes).map_err(|_| inside())?;
    done.facts.push(Fact::Booted { booted });
    Ok((parts.status, Json(done)).into_response())
}

async fn booted(ops: &Arc<Ops>, ctid: Ctid) -> Result<Booted, Refusal> {
    let ended = || {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ExitCode::Environment,
            format!("CT {ctid} ended while it was booting"),
            &format!("`vzctl why {ctid}` tells how it ended, `vzctl history {ctid}` who asked for that"),
        )
    };
    let live = ops.m.cell(ctid).live().ok_or_else(ended)?;
    let program = look(ops, |m| Ok(m.hands.monitor.program()?)).await?;
    let pool = ops.pools.work.clone();
    let asker = BootAsker { run_dir: ops.m.paths.ct_run(ctid), live, program, pool };
    let booted = booted::wait(&asker).await.map_err(|e| match e {
        NotBooted::Ended => ended(),
        NotBooted::TooLong { init, says, systemd } => {
            let message = format!(
                "CT {ctid} runs, but has not reached its default runlevel within {} s: its init ({init}) {}",
                booted::LONGEST,
                if says.is_empty() { "does not answer".to_owned() } else { format!("says `{says}`") }
            );
            let hint = match systemd {
                true => format!("`vzctl exec {ctid} systemctl list-jobs` shows what it waits for"),
                false => format!("`vzctl console {ctid}` shows what it is doing"),
            };
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::ExecTimeout, message, &hint)
        }
        NotBooted::Io(e) => {
            let message = format!("asking the init of CT {ctid}: {e}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ExitCode::System, message, "")
        }
    })?;
    let m: Arc<Manager> = ops.m.clone();
    let text = match &booted {
        Booted::Well { .. } | Booted::WithFailures { .. } => "its default runlevel is reached",
        Booted::Quiet { .. } => "nothing that its init would wait for has been seen for a while",
        Booted::Untold { .. } => "it runs; its init does not tell when its default runlevel is reached",
    };
    ops.pools.look.post(move || {
        m.event(&crate::inventory::NewEvent {
            ctid,
            at: crate::manager::now(),
            kind: "booted",
            counter: None,
            count: 1,
            text,
            by: None,
        });
    });
    Ok(booted)
}
