//! OS templates: building, importing and removing one. Their lock is held from the first step to the last; what is below
//! staging when vzd dies is swept when it starts.

use super::{
    Ask, Work,
    machine::{Machine, Run},
    step::{Operation, Resume, Step},
    work::End,
};
use crate::{
    error::{Error, Result},
    template::{Making, Removing, Upload},
    view,
};
use serde::{Deserialize, Serialize};
use vz_api::wire::BuildEvent;
use vz_types::{Ctid, ExitCode, Fact, OpKind, Subject, TemplateName, judge::Request};

/// What a template is made from.
#[derive(Debug)]
pub enum Source {
    /// Its recipe.
    Recipe {
        /// Even if it is there already.
        rebuild: bool,
    },
    /// An archive that arrives meanwhile.
    Archive(Box<Upload>),
}

/// What recovery must know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Note {
    /// The version that is being made, once it is described.
    digest: String,
}

/// A template that is being made, by whichever means.
#[derive(Debug)]
struct Made {
    name: TemplateName,
    source: Option<Source>,
    making: Option<Making>,
    /// After a crash: the version that was registered.
    digest: String,
}

impl Made {
    fn resumed(w: &Work, note: Note) -> Result<Self> {
        Ok(Self { name: name_of(w)?, source: None, making: None, digest: note.digest })
    }

    /// Takes the lock, and writes it down.
    fn begin(&mut self, w: &Work) -> Result<()> {
        let store = &w.m.templates;
        self.making = match self.source.take() {
            Some(Source::Recipe { rebuild }) => Making::build(store, &self.name, rebuild)?,
            Some(Source::Archive(upload)) => Some(Making::import(store, &self.name, *upload)?),
            None => None,
        };
        match &mut self.making {
            Some(making) => making.ends_with(w.handle.cancelled()),
            None => w.tell(Fact::BuiltAlready),
        }
        w.begin(&Note::default(), None, false, |_| Ok(()))
    }

    fn making(&mut self) -> Result<&mut Making> {
        let lost = || Error::refused(ExitCode::System, "a template that was interrupted is not gone on with", "");
        self.making.as_mut().ok_or_else(lost)
    }

    fn describe(&mut self, w: &Work) -> Result<()> {
        let making = self.making()?;
        making.describe(&mut |e| say(w, e))?;
        let digest = making.digest().to_owned();
        w.note(&Note { digest })
    }

    fn switch(&mut self, w: &Work) -> Result<()> {
        if self.making.is_none() && !self.digest.is_empty() {
            self.making = Some(Making::registered(&w.m.templates, &self.name, &self.digest)?);
        }
        Ok(self.making()?.switch()?)
    }

    fn commit(&mut self, w: &Work) -> Result<()> {
        say(w, BuildEvent::Stage { stage: "done".into(), percent: 100 });
        if let Some(making) = self.making.take() {
            making.sweep()?;
        }
        let mut info = w.m.templates.made(&self.name)?;
        info.used_by = view::made_from(&w.m, &self.name)?.into_iter().map(|(ctid, _)| ctid.get()).collect();
        let json = serde_json::to_value(&info).ok();
        w.handle.change(|s| s.result = json);
        w.finish(End::default(), |_| Ok(()))
    }

    /// Removes old versions nobody uses. Not knowing who uses what, nothing is taken away.
    fn prune(&mut self, w: &Work) -> Result<()> {
        let in_use: Vec<String> = view::made_from(&w.m, &self.name)?.into_iter().map(|(_, digest)| digest).collect();
        if let Err(e) = w.m.templates.prune(&self.name, &in_use) {
            tracing::warn!(template = self.name.as_str(), "old versions: {e}");
        }
        Ok(())
    }

    fn how(&self, w: &Work, step: &str) -> Resume {
        match step {
            "switch" | "commit" | "prune" if w.m.templates.has_version(&self.name, &self.digest) => {
                Resume::At("switch")
            }
            "register" if w.m.templates.has_version(&self.name, &self.digest) => Resume::At("switch"),
            // Built already: there was nothing to do.
            "commit" | "prune" if w.m.templates.exists(&self.name) => Resume::At("prune"),
            _ => Resume::Back,
        }
    }

    fn steps(recognise: bool) -> Vec<Step<Self>> {
        let made = |m: &Self| m.making.is_some();
        let mut steps = vec![
            Step::new("lock", Self::begin),
            // Whatever became of it: it is below staging, and nobody else is.
            Step::new(if recognise { "unpack" } else { "fill" }, |m: &mut Self, w| {
                Ok(m.making()?.fill(&mut |e| say(w, e))?)
            })
            .when(made)
            .undo(|m, _| match m.making.take() {
                Some(making) => Ok(making.sweep()?),
                None => Ok(()),
            }),
        ];
        if recognise {
            steps.push(
                Step::new("recognise", |m: &mut Self, w| Ok(m.making()?.recognise(&mut |e| say(w, e))?)).when(made),
            );
        }
        steps.extend([
            Step::new("fix-ups", |m: &mut Self, w| Ok(m.making()?.fix_up(&mut |e| say(w, e))?)).when(made),
            Step::new("describe", Self::describe).when(made),
            Step::new("register", |m: &mut Self, w| Ok(m.making()?.register(&mut |e| say(w, e))?)).when(made),
            Step::new("switch", Self::switch).when(|m| match &m.making {
                Some(making) => making.switches(),
                None => !m.digest.is_empty(),
            }),
            Step::new("commit", Self::commit),
            Step::new("prune", Self::prune),
        ]);
        steps
    }
}

/// Tells how it goes: the stage and percent of it, and lines of its log.
fn say(w: &Work, event: BuildEvent) {
    match event {
        BuildEvent::Stage { stage, percent } => {
            w.progress(percent.into(), Some(100), "percent");
            w.say(&stage);
        }
        BuildEvent::Log { line } => w.log(&line),
        BuildEvent::Done { .. } | BuildEvent::Failed { .. } => {}
    }
}

fn name_of(w: &Work) -> Result<TemplateName> {
    match &w.handle.subject {
        Subject::Template(name) => Ok(name.clone()),
        other => Err(Error::refused(ExitCode::System, format!("{other} is not an OS template"), "")),
    }
}

macro_rules! making {
    ($(#[doc = $doc:literal] $name:ident, $kind:ident, $recognise:literal;)+) => {$(
        #[doc = $doc]
        #[derive(Debug)]
        pub struct $name(Made);

        impl Operation for $name {
            const KIND: OpKind = OpKind::$kind;
            type Note = Note;

            fn steps() -> Vec<Step<Self>> {
                Made::steps($recognise).into_iter().map(|s| s.part_of(|m: &mut Self| &mut m.0, |m| &m.0)).collect()
            }

            fn resume(w: &Work, note: Note) -> Result<Self> {
                Made::resumed(w, note).map(Self)
            }

            fn how(&mut self, w: &Work, step: &str, _: bool) -> Result<Resume> {
                Ok(self.0.how(w, step))
            }
        }
    )+};
}

making! {
    /// A template that is built.
    Build, Build, false;
    /// A template that is imported.
    Import, Import, true;
}

/// Asks for a build.
pub fn build_template(name: TemplateName, rebuild: bool) -> Ask {
    let subject = Subject::Template(name.clone());
    Ask::new(subject, Request::plain(OpKind::Build), move |_| -> Result<Box<dyn Run>> {
        let source = Some(Source::Recipe { rebuild });
        Ok(Machine::fresh(Build(Made { name, source, making: None, digest: String::new() })))
    })
}

/// Asks for an import.
pub fn import_template(name: TemplateName, upload: Upload) -> Ask {
    let subject = Subject::Template(name.clone());
    Ask::new(subject, Request::plain(OpKind::Import), move |_| -> Result<Box<dyn Run>> {
        let source = Some(Source::Archive(Box::new(upload)));
        Ok(Machine::fresh(Import(Made { name, source, making: None, digest: String::new() })))
    })
}

/// A template that is removed.
#[derive(Debug)]
pub struct Remove {
    name: TemplateName,
    removing: Option<Removing>,
}

/// Asks for a removal.
pub fn remove_template(name: TemplateName) -> Ask {
    let subject = Subject::Template(name.clone());
    Ask::new(subject, Request::plain(OpKind::Remove), move |w| -> Result<Box<dyn Run>> {
        let users: Vec<Ctid> = view::made_from(&w.m, &name)?.into_iter().map(|(ctid, _)| ctid).collect();
        let removing = Some(Removing::begin(&w.m.templates, &name, &users)?);
        Ok(Machine::fresh(Remove { name, removing }))
    })
}

impl Operation for Remove {
    const KIND: OpKind = OpKind::Remove;
    type Note = serde_json::Value;

    fn steps() -> Vec<Step<Self>> {
        vec![
            Step::new("lock", |_, w| w.begin(&serde_json::json!({}), None, false, |_| Ok(()))),
            Step::new("hide", |r: &mut Self, _| match &mut r.removing {
                Some(removing) => Ok(removing.hide()?),
                None => Ok(()),
            }),
            Step::new("delete", |r: &mut Self, _| match &mut r.removing {
                Some(removing) => Ok(removing.delete()?),
                None => Ok(()),
            })
            .onward(),
            Step::new("commit", |r: &mut Self, w| {
                w.tell(Fact::TemplateRemoved { template: r.name.to_string() });
                r.removing = None;
                w.finish(End::default(), |_| Ok(()))
            })
            .onward(),
        ]
    }

    fn resume(w: &Work, _: serde_json::Value) -> Result<Self> {
        Ok(Self { name: name_of(w)?, removing: None })
    }

    fn how(&mut self, w: &Work, _: &str, _: bool) -> Result<Resume> {
        // Out of sight it is gone; its files were swept when vzd started.
        Ok(if w.m.templates.exists(&self.name) { Resume::Back } else { Resume::At("commit") })
    }
}
