//! Where vzd can be made to die by SIGKILL, which is how the crash tests reach every point: before and after each step of
//! each operation. `VZ_FAULT=create.layer` dies after the step, `VZ_FAULT=create.layer.before` just before it, and
//! `VZ_FAULT=vzmon.storage` makes the monitor die at its own step of that name. The steps are the operations' own lists
//! ([`crate::ops::points`]).

/// Environment variable that names the fault point to die at.
pub const FAULT_ENV: &str = "VZ_FAULT";

/// The fault point asked for, if one was.
#[derive(Default)]
pub struct Fault {
    wanted: Option<String>,
    /// Told of every point that is reached.
    #[cfg(test)]
    told: std::sync::OnceLock<Told>,
}

#[cfg(test)]
type Told = Box<dyn Fn(&str) + Send + Sync>;

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fault").field(&self.wanted).finish()
    }
}

impl Fault {
    /// From the environment of this process.
    pub fn from_env() -> Self {
        Self {
            wanted: std::env::var(FAULT_ENV).ok().filter(|f| !f.is_empty()),
            #[cfg(test)]
            told: std::sync::OnceLock::new(),
        }
    }

    /// The point, if there is one.
    pub fn point(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// The monitor's own step to die at.
    pub fn monitor_step(&self) -> Option<String> {
        self.wanted.as_deref().and_then(|f| f.strip_prefix("vzmon.")).map(String::from)
    }

    /// From now on every point that is reached is told, by name.
    #[cfg(test)]
    pub fn tell(&self, told: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Dies here if this is the point.
    pub fn reach(&self, op: &str, step: &str, before: bool) {
        #[cfg(test)]
        if let Some(told) = self.told.get() {
            told(&format!("{op}.{step}{}", if before { ".before" } else { "" }));
        }
        let Some(wanted) = self.wanted.as_deref() else { return };
        let rest = wanted.strip_prefix(op).and_then(|r| r.strip_prefix('.')).and_then(|r| r.strip_prefix(step));
        if rest == Some(if before { ".before" } else { "" }) {
            // Nothing of ours runs after this: no destructor, no flush, exactly as in a real kill.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
