//! What can be asked of the operations, and what asking comes to.

use super::{Handle, Work, machine::Run};
use crate::error::Result;
use std::sync::Arc;
use vz_types::{Fact, OpId, Subject, judge::Request};

/// Makes an operation, after every check that has no side effect.
pub(super) type Make = Box<dyn FnOnce(&Work) -> Result<Box<dyn Run>> + Send>;

/// A change that is asked for.
pub struct Ask {
    /// The number its client gave it; else it gets one.
    pub id: Option<OpId>,
    /// What it is about.
    pub subject: Subject,
    /// What is asked, as the rules see it.
    pub request: Request,
    /// Who asks.
    pub asker: String,
    /// Kept from now on, whatever becomes of its client.
    pub keep: bool,
    /// The operation that it follows at once, where that has asked for it.
    pub(super) follows: Option<OpId>,
    pub(super) make: Make,
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ask").field("subject", &self.subject).field("request", &self.request).finish_non_exhaustive()
    }
}

impl Ask {
    /// A change of a container, nobody's.
    pub fn new(
        subject: Subject,
        request: Request,
        make: impl FnOnce(&Work) -> Result<Box<dyn Run>> + Send + 'static,
    ) -> Self {
        Self { id: None, subject, request, asker: "vzd".into(), keep: false, follows: None, make: Box::new(make) }
    }

    /// Asked for by somebody.
    pub fn by(mut self, asker: impl Into<String>) -> Self {
        self.asker = asker.into();
        self
    }

    /// With a number its client chose.
    pub fn numbered(mut self, id: Option<OpId>) -> Self {
        self.id = id;
        self
    }

    /// To follow this operation at once: kept with its end, so that a vzd that is killed between them asks for it again.
    pub(super) fn after(self, operation: OpId) -> Self {
        Self { follows: Some(operation), keep: true, ..self }
    }

    /// Kept at once.
    pub fn kept(mut self) -> Self {
        self.keep = true;
        self
    }
}

/// What asking came to.
#[derive(Clone, Debug)]
pub enum Asked {
    /// An operation, this one's own or one that does the same.
    Operation(Arc<Handle>),
    /// There is nothing to do.
    AlreadySo(Fact),
}
