//! Where an import, a build or a removal can be made to die by SIGKILL, for tests of what is left then: behind a step
//! (`VZ_FAULT=import.unpack`) or right before it (`VZ_FAULT=import.unpack.before`).

use super::TemplateError;

/// What each does, in order. `import.register` and `build.register` are one rename for a new name; where the template is
/// there already they are the version's and its link's, with `switch` between the two.
pub const STEPS: &[(&str, &[&str])] = &[
    ("import", &["unpack", "recognise", "fix-ups", "describe", "register", "switch"]),
    ("build", &["fill", "fix-ups", "describe", "register", "switch"]),
    ("remove", &["hide", "delete"]),
];

/// Every point by name.
pub fn points() -> impl Iterator<Item = String> {
    STEPS
        .iter()
        .flat_map(|(op, steps)| steps.iter().flat_map(move |s| [format!("{op}.{s}.before"), format!("{op}.{s}")]))
}

/// Runs a step of an operation between its two points.
pub fn step<T>(op: &str, name: &str, work: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    reach(op, name, ".before");
    let done = work()?;
    reach(op, name, "");
    Ok(done)
}

/// Dies here if this is the point.
fn reach(op: &str, name: &str, side: &str) {
    debug_assert!(STEPS.iter().any(|(o, steps)| *o == op && steps.contains(&name)), "{op}.{name} is not in the table");
    let wanted = std::env::var("VZ_FAULT").unwrap_or_default();
    if wanted == format!("{op}.{name}{side}") {
        // Nothing of ours runs after this: no destructor, no flush, exactly as in a real kill.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
