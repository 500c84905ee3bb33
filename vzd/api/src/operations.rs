//! Operations, for clients: asking under a number of one's own, waiting, following, cancelling, and finding one again
//! whose connection was lost.

use crate::{
    client::{Client, ClientError, decode, query, segment},
    wire::{ApiError, BuildEvent, Done, Operation, OperationsRequest, TemplateInfo},
};
use hyper::Method;
use std::time::{Duration, Instant};
use vz_types::{Fact, OpId, Reason};

/// How long a vzd that went away is waited for: one that is replaced or killed is back by then.
const BACK: Duration = Duration::from_millis(2500);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(25);
/// Longest one request waits for an operation's end, in seconds.
const WAIT: u64 = 600;

impl Client {
    /// The same, asking for changes under this number: when the connection is lost, the operation is found again.
    pub fn numbered(&self, id: OpId) -> Self {
        Self { operation: Some(id), ..self.clone() }
    }

    /// The same, with changes left to go on: their answer is the number of the operation, at once.
    pub fn in_background(&self, background: bool) -> Self {
        Self { background, ..self.clone() }
    }

    /// Operations, the newest first.
    pub fn operations(&self, wanted: &OperationsRequest) -> Result<Vec<Operation>, ClientError> {
        self.get(&format!("/v1/operations{}", query(wanted)?))
    }

    /// One operation.
    pub fn operation(&self, id: &str) -> Result<Operation, ClientError> {
        self.get(&format!("/v1/operations/{}", segment(id)))
    }

    /// Asks an operation to end; what it has done is taken back.
    pub fn cancel(&self, id: &str) -> Result<Operation, ClientError> {
        let path = format!("/v1/operations/{}", segment(id));
        self.whole(Method::DELETE, &path, Vec::new(), Some(self.deadline))
    }

    /// Waits until an operation has ended, over restarts of vzd.
    pub fn wait(&self, id: &str) -> Result<Operation, ClientError> {
        let mut gone: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let path = format!("/v1/operations/{}?wait={WAIT}", segment(id));
            match self.whole::<Operation>(Method::GET, &path, Vec::new(), None) {
                Ok(operation) if operation.ended.is_some() => return Ok(operation),
                Ok(_) => gone = None,
                Err(e @ (ClientError::Broken { .. } | ClientError::NotRunning { .. })) => {
                    // The first failure of a row begins the time; a connection that held meanwhile ends it.
                    if matches!(e, ClientError::Broken { .. }) && asked.elapsed() > AGAIN {
                        gone = None;
                    }
                    let since = *gone.get_or_insert_with(Instant::now);
                    if since.elapsed() >= BACK {
                        return Err(e);
                    }
                    std::thread::park_timeout(AGAIN);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sees an operation as it changes, until it ends or `each` wants no more. One that is not there yet is an error.
    pub fn follow(&self, id: &str, mut each: impl FnMut(&Operation) -> bool) -> Result<(), ClientError> {
        let path = format!("/v1/operations/{}/events", segment(id));
        self.run(Method::GET, &path, crate::body::Payload::Whole(None), None, |status, line| {
            Ok(each(&decode(status, &Method::GET, &path, line)?))
        })
    }

    /// An operation that has ended, with those that follow it at once: waits for them.
    pub fn done(&self, operation: Operation) -> Result<Done, ClientError> {
        let mut all = done(operation)?;
        while let Some(at) = all.facts.iter().position(|f| matches!(f, Fact::Follows { .. })) {
            let Fact::Follows { operation, .. } = all.facts.remove(at) else { break };
            let next = done(self.wait(&operation.to_string())?)?;
            all.facts.extend(next.facts);
            all.steps.extend(next.steps);
        }
        Ok(all)
    }

    /// What became of a change whose connection was lost.
    pub(crate) fn found_again(&self, id: OpId, lost: ClientError) -> Result<Done, ClientError> {
        match self.wait(&id.to_string()) {
            Ok(operation) => self.done(operation),
            Err(e) if never_began(&e) => Err(ClientError::NeverBegan { source: Box::new(lost) }),
            Err(_) => Err(ClientError::Lost { id, source: Box::new(lost) }),
        }
    }

    /// The same for a template that was being made.
    pub(crate) fn made_after_all(
        &self,
        id: OpId,
        name: &str,
        lost: ClientError,
        each: &mut dyn FnMut(&BuildEvent),
    ) -> Result<TemplateInfo, ClientError> {
        self.found_again(id, lost)?;
        let template = self.template(name)?;
        each(&BuildEvent::Done { template: Box::new(template.clone()) });
        Ok(template)
    }
}

/// An operation that has ended, as the answer it would have been.
pub fn done(operation: Operation) -> Result<Done, ClientError> {
    match operation.error {
        Some(error) => Err(ClientError::Api(Box::new(ApiError { operation: Some(operation.id), ..error }))),
        None => Ok(Done {
            ctid: operation.ctid,
            operation: Some(operation.id),
            facts: operation.facts,
            steps: operation.times,
            ..Done::default()
        }),
    }
}

fn never_began(e: &ClientError) -> bool {
    matches!(e, ClientError::Api(a) if matches!(a.reason, Some(Reason::NoOperation { .. })))
}
