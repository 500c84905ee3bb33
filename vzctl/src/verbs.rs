//! The verbs that vzd carries out: a request, the classic sentences, the exit code.

use crate::{
    all,
    args::{CreateArgs, SetArgs},
    failure::{Failure, Outcome},
    progress::{self, Awaited},
    settings,
    target::{self, Target},
    ui::Ui,
    words,
};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use vz_api::{
    client::{Client, ClientError},
    wire::{CreateRequest, Done, RestartRequest, SetRequest, Settings, StartRequest, StopRequest},
};
use vz_types::{Ctid, ExitCode, Fact, ManagerConfig, Paths, TemplateName};

/// The sentences of vzctl 4.11, printed where vzd sends none of its own.
const STARTED: &[&str] = &["Starting container...", "Container is mounted", "Container start in progress..."];
const STOPPED: &[&str] = &["Stopping container ...", "Container was stopped", "Container is unmounted"];
/// How long vzd may take to notice an end it was not asked for, at worst.
const NOTICED: Duration = Duration::from_secs(8);
/// Where an installed vzd is.
const VZD: &str = "/usr/sbin/vzd";

/// One manager and how to print.
pub struct Session {
    /// Where its files are.
    pub paths: Paths,
    /// Its daemon.
    pub client: Client,
    /// How to print.
    pub ui: Ui,
    /// Changes are left to go on.
    pub background: bool,
}

impl Session {
    /// Asks for a change under a number of our own, tells of it while it takes long, and finds it again where the
    /// connection is lost. `words` say what it is.
    pub fn change<T>(
        &self,
        words: &str,
        request: impl FnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let awaited = Awaited { id: progress::number(), words: words.to_owned(), watched: false };
        let client = self.client.numbered(awaited.id).in_background(self.background);
        match self.background {
            true => request(&client),
            false => progress::waiting(&self.ui, &self.client, &awaited, || request(&client)),
        }
    }

    /// Prints what became of it; `first` comes before what vzd tells, `classic` in place of nothing told.
    pub fn finish(&self, answer: Result<Done, ClientError>, first: &[&str], classic: &[&str]) -> Outcome {
        let mut done = words::told(answer?, &self.paths);
        if self.background && done.facts.is_empty() {
            self.ui.number(done)?;
            return Ok(0);
        }
        let classic: Vec<String> = classic.iter().map(|s| (*s).to_owned()).collect();
        if !done.messages.is_empty() {
            done.messages.splice(0..0, first.iter().map(|s| (*s).to_owned()));
        }
        self.ui.done(done, &classic)?;
        Ok(0)
    }

    /// Waits for the boot where the answer does not tell of it: the connection was lost meanwhile.
    fn booted(&self, target: &Target, wait: bool, answer: Result<Done, ClientError>) -> Result<Done, ClientError> {
        let mut done = answer?;
        let told = done.facts.iter().any(|f| matches!(f, Fact::Booted { .. }));
        if wait && !self.background && !told && !done.facts.is_empty() {
            done.facts.extend(self.client.boot(&target.to_string())?.facts);
        }
        Ok(done)
    }

    /// `create`.
    pub fn create(&self, args: &CreateArgs) -> Outcome {
        let ctid = match args.ctid.parse()? {
            Target::Ctid(ctid) => ctid,
            Target::Name(name) => {
                return Err(Failure::value(format!("Bad CT ID {name}: a new CT needs a number"))
                    .hint(format!("choose 101..{} and give the name with --name {name}", Ctid::MAX)));
            }
        };
        let settings = Settings { sample: args.config.clone(), ..args.settings.resolve()? };
        if args.ostemplate.is_none() && !self.has_default_template() {
            return Err(Failure::new(ExitCode::OsTemplateUnset, format!("no OS template is named for CT {ctid}")).hint(
                "add --ostemplate NAME (`vzctl template list` shows the names), or set `ostemplate` under [defaults] in vz.toml",
            ));
        }
        let parse = |name: &String| {
            name.parse::<TemplateName>().map_err(|e| {
                Failure::new(ExitCode::NoTemplate, format!("--ostemplate: {e}"))
                    .hint("`vzctl template list` shows the names")
            })
        };
        let ostemplate = args.ostemplate.as_ref().map(parse).transpose()?;
        if let Some(layout) = &args.layout {
            layout.parse::<vz_types::config::Layout>().map_err(Failure::value)?;
        }
        let request = CreateRequest {
            ctid: ctid.get(),
            ostemplate: ostemplate.as_ref().map(ToString::to_string),
            layout: args.layout.clone(),
            settings,
        };
        let answer = self.change(&format!("Creating CT {ctid}"), |c| c.create(&request));
        self.finish(
            answer,
            &[],
            &[
                &format!(
                    "Creating container private area ({})",
                    ostemplate.as_ref().map_or("the default OS template", TemplateName::as_str)
                ),
                "Performing postcreate actions",
                &format!("CT configuration saved to {}", self.paths.conf(ctid).display()),
                "Container private area was created",
            ],
        )
    }

    /// Whether vz.toml names an OS template for a `create` that names none; which, vzd knows.
    fn has_default_template(&self) -> bool {
        let text = vz_sys::records::operators_text(&self.paths.etc().join("vz.toml")).unwrap_or_default();
        toml::from_str::<ManagerConfig>(&text).is_ok_and(|config| config.defaults.ostemplate.is_some())
    }

    /// `start`.
    pub fn start(&self, target: &str, wait: bool, force: bool) -> Outcome {
        let target: Target = target.parse()?;
        let words = format!("Starting CT {target}{}", if wait { ", waiting for its default runlevel" } else { "" });
        let request = StartRequest { force, wait };
        let answer = self.change(&words, |c| c.start(&target.to_string(), &request));
        self.finish(self.booted(&target, wait, answer), &[], STARTED)
    }

    /// `stop`.
    pub fn stop(&self, target: &str, fast: bool, timeout: Option<&str>) -> Outcome {
        let target: Target = target.parse()?;
        let timeout = timeout.map(settings::timeout).transpose()?;
        let request = StopRequest { fast, timeout };
        let answer = self.change(&format!("Stopping CT {target}"), |c| c.stop(&target.to_string(), &request));
        match (&answer, &target) {
            // vzd knows none, and yet it runs or may (an emptied inventory, say): its monitor ends it.
            (Err(e), Target::Ctid(ctid))
                if e.code() == ExitCode::NoConfig && !matches!(target::running(&self.paths, *ctid), Ok(None)) =>
            {
                let mut warnings = all::stop_without_vzd(self, *ctid, fast, timeout)?;
                warnings.extend(self.left_mounted(*ctid));
                let done = Done { ctid: Some(ctid.get()), facts: vec![Fact::Stopped], ..Done::default() };
                warnings.iter().for_each(|w| self.ui.warn(&format!("WARNING: {w}")));
                self.finish(Ok(done), &[], STOPPED)
            }
            _ => {
                let joined = |done: &Done| done.facts.iter().any(|f| matches!(f, Fact::Joined { .. }));
                if timeout.is_some() && answer.as_ref().is_ok_and(joined) {
                    self.ui.warn("WARNING: the stop under way kept its own time; `--fast` makes one hurry");
                }
                self.finish(answer, &[], STOPPED)
            }
        }
    }

    /// What is left of a container that was ended without vzd's help, once that has had the time to notice.
    fn left_mounted(&self, ctid: Ctid) -> Option<String> {
        let until = Instant::now() + NOTICED;
        while matches!(target::is_mounted(&self.paths, ctid), Ok(true)) {
            if Instant::now() >= until {
                return Some(format!(
                    "the files of CT {ctid} are still mounted on {}: vzd takes them away at its next start at the latest",
                    self.paths.root(ctid).display()
                ));
            }
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = rustix::event::poll(&mut [], Some(&pause));
        }
        None
    }

    /// `restart`.
    pub fn restart(&self, target: &str, wait: bool, force: bool, fast: bool) -> Outcome {
        let target: Target = target.parse()?;
        let request = RestartRequest { fast, force, wait };
        let answer = self.change(&format!("Restarting CT {target}"), |c| c.restart(&target.to_string(), &request));
        let classic = [&["Restarting container"], STOPPED, STARTED].concat();
        self.finish(self.booted(&target, wait, answer), &["Restarting container"], &classic)
    }

    /// `destroy`.
    pub fn destroy(&self, target: &str) -> Outcome {
        let target: Target = target.parse()?;
        // Afterwards a name means nothing any more.
        let private = target.ctid(&self.paths).map(|c| self.paths.private(c).display().to_string()).unwrap_or_default();
        let answer = self.change(&format!("Destroying CT {target}"), |c| c.destroy(&target.to_string()));
        self.finish(
            answer,
            &[],
            &[&format!("Destroying container private area: {private}"), "Container private area was destroyed"],
        )
    }

    /// `mount`.
    pub fn mount(&self, target: &str) -> Outcome {
        let target: Target = target.parse()?;
        let answer = self.change(&format!("Mounting CT {target}"), |c| c.mount(&target.to_string()));
        self.finish(answer, &[], &["Container is mounted"])
    }

    /// `umount`.
    pub fn umount(&self, target: &str) -> Outcome {
        let target: Target = target.parse()?;
        let answer = self.change(&format!("Unmounting CT {target}"), |c| c.umount(&target.to_string()));
        self.finish(answer, &[], &["Container is unmounted"])
    }

    /// `set`.
    pub fn set(&self, args: &SetArgs) -> Outcome {
        let target: Target = args.target.ct.parse()?;
        if let Some(mode) = args.setmode.as_deref().filter(|m| !matches!(*m, "restart" | "ignore")) {
            return Err(Failure::value(format!("--setmode `{mode}` is not understood; write restart or ignore")));
        }
        let settings =
            Settings { sample: args.applyconfig.clone(), reset_ub: args.reset_ub, ..args.settings.resolve()? };
        if settings::is_empty(&settings) {
            return Err(Failure::new(ExitCode::BadSyntax, format!("nothing to set for CT {target}"))
                .hint("name what to change; `vzctl set --help` lists what there is"));
        }
        let request = SetRequest { settings, save: args.save, setmode: args.setmode.clone() };
        let answer = self.change(&format!("Changing CT {target}"), |c| c.set(&target.to_string(), &request));
        let saved =
            answer.as_ref().ok().filter(|_| args.save).and_then(|d| d.ctid).and_then(|c| Ctid::try_from(c).ok());
        let classic = saved.map(|c| format!("CT configuration saved to {}", self.paths.conf(c).display()));
        self.finish(answer, &[], &classic.as_deref().into_iter().collect::<Vec<_>>())
    }

    /// `recover`: the work of `vzd recover`, because only vzd knows its inventory and holds its lock.
    pub fn recover(&self) -> Outcome {
        let beside = std::env::current_exe().ok().and_then(|e| Some(e.parent()?.join("vzd")));
        let vzd = beside.filter(|p| p.is_file()).unwrap_or_else(|| PathBuf::from(VZD));
        let out = Command::new(&vzd).arg("--root").arg(&self.paths.base).arg("recover").output().map_err(|e| {
            Failure::system(format_args!("cannot execute {}", vzd.display()), e).hint("install vz completely")
        })?;
        if !out.status.success() {
            let words = String::from_utf8_lossy(&out.stderr);
            return Err(Failure::new(ExitCode::System, words.trim().trim_start_matches("vzd: ")));
        }
        let messages = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
        self.ui.done(Done { messages, ..Done::default() }, &[])?;
        Ok(0)
    }

    /// `version`: ours always, vzd's where it runs.
    pub fn version(&self) -> Outcome {
        let daemon = self.client.version();
        if self.ui.json {
            let vzd = daemon.as_ref().ok();
            self.ui.object(&serde_json::json!({ "vzctl": env!("CARGO_PKG_VERSION"), "vzd": vzd }))?;
            return Ok(0);
        }
        self.ui.data(&format!("vzctl version {}", env!("CARGO_PKG_VERSION")));
        match daemon {
            Ok(d) => self.ui.data(&format!("vzd version {} (pid {}, root {})", d.version, d.pid, d.root)),
            Err(e) => self.ui.data(&format!("vzd: {e}")),
        }
        Ok(0)
    }
}
