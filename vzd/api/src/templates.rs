//! OS templates, for clients: listing, building, importing and removing them.

use crate::{
    body::Payload,
    client::{Client, ClientError, decode, encode, query, segment},
    wire::{BuildEvent, BuildRequest, Done, ImportRequest, TemplateInfo},
};
use hyper::Method;
use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

impl Client {
    /// Every template, built or buildable.
    pub fn templates(&self) -> Result<Vec<TemplateInfo>, ClientError> {
        self.get("/v1/templates")
    }
    /// One template with its packages.
    pub fn template(&self, name: &str) -> Result<TemplateInfo, ClientError> {
        self.get(&format!("/v1/templates/{}", segment(name)))
    }
    /// Removes a built template.
    pub fn remove_template(&self, name: &str) -> Result<Done, ClientError> {
        self.change(Method::DELETE, &format!("/v1/templates/{}", segment(name)), &())
    }

    /// Builds a template; `each` sees every event as it comes. Answers what was built.
    pub fn build(
        &self,
        name: &str,
        request: &BuildRequest,
        mut each: impl FnMut(&BuildEvent),
    ) -> Result<TemplateInfo, ClientError> {
        let path = format!("/v1/templates/{}/build", segment(name));
        let made = self.made(&path, Payload::Whole(Some(encode(request)?.into())), &mut each);
        self.after_all(name, made, &mut each)
    }

    /// Asks for a template to be built, and leaves it to be.
    pub fn begin_build(&self, name: &str, request: &BuildRequest) -> Result<Done, ClientError> {
        self.in_background(true).change(Method::POST, &format!("/v1/templates/{}/build", segment(name)), request)
    }

    fn after_all(
        &self,
        name: &str,
        made: Result<TemplateInfo, ClientError>,
        each: &mut dyn FnMut(&BuildEvent),
    ) -> Result<TemplateInfo, ClientError> {
        match (made, self.operation) {
            (Err(e @ ClientError::Broken { .. }), Some(id)) => self.made_after_all(id, name, e, each),
            (made, _) => made,
        }
    }

    /// Makes a template from an archive, read as it is sent; `length` is its size where that is known. `each` sees every
    /// event as it comes. Answers what was made.
    pub fn import(
        &self,
        name: &str,
        request: &ImportRequest,
        archive: impl Read + Send + 'static,
        length: Option<u64>,
        mut each: impl FnMut(&BuildEvent),
    ) -> Result<TemplateInfo, ClientError> {
        let path = format!("/v1/templates/{}/import{}", segment(name), query(request)?);
        let failed = Arc::new(Mutex::new(None));
        let outcome = self.made(&path, Payload::reading(archive, length, Arc::clone(&failed)), &mut each);
        // What broke the connection then was ourselves.
        match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(source) if outcome.is_err() => Err(ClientError::Input { source }),
            _ => self.after_all(name, outcome, &mut each),
        }
    }

    /// Sends an archive, and leaves the template to be made from it.
    pub fn begin_import(
        &self,
        name: &str,
        request: &ImportRequest,
        archive: impl Read + Send + 'static,
        length: Option<u64>,
    ) -> Result<Done, ClientError> {
        let request = ImportRequest { background: true, ..request.clone() };
        let path = format!("/v1/templates/{}/import{}", segment(name), query(&request)?);
        let failed = Arc::new(Mutex::new(None));
        let body = Payload::reading(archive, length, Arc::clone(&failed));
        let answer = self.changed(Method::POST, &path, body);
        match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(source) if answer.is_err() => Err(ClientError::Input { source }),
            _ => answer,
        }
    }

    /// A request that is answered by events.
    fn made(&self, path: &str, body: Payload, each: &mut dyn FnMut(&BuildEvent)) -> Result<TemplateInfo, ClientError> {
        let mut outcome: Option<Result<TemplateInfo, ClientError>> = None;
        let ended = self.run(Method::POST, path, body, None, |status, line| {
            let event: BuildEvent = decode(status, &Method::POST, path, line)?;
            each(&event);
            match event {
                BuildEvent::Done { template } => outcome = Some(Ok(*template)),
                BuildEvent::Failed { error } => outcome = Some(Err(ClientError::Api(Box::new(error)))),
                BuildEvent::Stage { .. } | BuildEvent::Log { .. } => {}
            }
            Ok(outcome.is_none())
        });
        // The last event is the answer, whatever became of the connection after it.
        match (outcome, ended) {
            (Some(outcome), _) => outcome,
            (None, Err(e)) => Err(e),
            (None, Ok(())) => Err(self.broken("the answer ended without saying how it went, on", "connection closed")),
        }
    }
}
