//! One error for every step of vzmon: the step, what it was about, and what the kernel said.

use std::{fmt, io};

/// A step that failed.
#[derive(Debug)]
pub struct StepError {
    /// One of [`vz_types::plan::LAUNCH_STEPS`], or a word of the same kind for other modes.
    pub step: &'static str,
    /// What was being done to what.
    pub what: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)?;
        // Only this text crosses to vzd, so what lies under it goes along.
        let mut cause = std::error::Error::source(&self.source);
        while let Some(c) = cause {
            write!(f, ": {c}")?;
            cause = c.source();
        }
        Ok(())
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds the context to a result.
pub trait At<T> {
    /// Names the step and what it was about.
    fn at(self, step: &'static str, what: impl Into<String>) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, what: impl Into<String>) -> Result<T, StepError> {
        self.map_err(|e| StepError { step, what: what.into(), source: e.into() })
    }
}
