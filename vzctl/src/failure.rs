//! What went wrong, as the operator is told it: an exit code, one message and the next step.

use vz_api::{client::ClientError, wire::ApiError};
use vz_types::ExitCode;

/// A refusal or a failure. Printed once, in `main`.
#[derive(Debug)]
pub struct Failure {
    /// What vzctl exits with.
    pub code: ExitCode,
    /// What failed, on what, and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The refusal as vzd sent it.
    pub api: Option<Box<ApiError>>,
    /// The number of the operation it is about, where vzd could not tell.
    pub operation: Option<String>,
}

/// What a verb answers: the status to exit with, which exec2 takes from the command it ran.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure without a next step.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, api: None, operation: None }
    }

    /// The next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A value that cannot be understood.
    pub fn value(message: impl Into<String>) -> Self {
        Self::new(ExitCode::BadValue, message)
    }

    /// Something the system refused, with its words.
    pub fn system(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::new(ExitCode::System, format!("{what}: {why}"))
    }

    /// The same as JSON.
    pub fn to_api(&self) -> ApiError {
        ApiError {
            code: self.code,
            message: self.message.clone(),
            hint: self.hint.clone(),
            reason: self.api.as_ref().and_then(|a| a.reason.clone()),
            operation: self.operation.clone(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        // The chain is told here, once: Display of an error never repeats its source.
        let mut message = e.to_string();
        let mut source = std::error::Error::source(&e);
        while let Some(s) = source {
            message = format!("{message}: {s}");
            source = s.source();
        }
        let (code, hint, operation) = (e.code(), e.hint(), e.operation());
        let api = match e {
            ClientError::Api(api) => Some(api),
            _ => None,
        };
        Self { code, message, hint, api, operation }
    }
}
