//! The sentences of what vzd tells as facts: those of vzctl 4.11 where it had one. The only place that has them.

use vz_api::wire::Done;
use vz_types::{Ctid, Fact, Paths, fact::Booted};

const STARTED: &[&str] = &["Starting container...", "Container is mounted", "Container start in progress..."];
const STOPPED: &[&str] = &["Stopping container ...", "Container was stopped", "Container is unmounted"];

/// The answer with its facts told: sentences into `messages`, what was not as asked for into `warnings`. An answer that
/// brings sentences of its own is left as it is.
pub fn told(mut done: Done, paths: &Paths) -> Done {
    let ct = done.ctid.map_or_else(|| "CT".to_owned(), |n| format!("CT {n}"));
    if !done.messages.is_empty() || !done.warnings.is_empty() {
        return done;
    }
    let conf = done.ctid.and_then(|n| Ctid::try_from(n).ok()).map(|c| paths.conf(c).display().to_string());
    for fact in &done.facts {
        if fact.is_warning() {
            done.warnings.push(warning(fact, &ct));
        } else {
            done.messages.extend(sentences(fact, conf.as_deref().unwrap_or_default()));
        }
    }
    done
}

/// What was done.
pub fn sentences(fact: &Fact, conf: &str) -> Vec<String> {
    let fixed = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect();
    match fact {
        Fact::Created { template } => vec![
            format!("Creating container private area ({template})"),
            "Performing postcreate actions".into(),
            format!("CT configuration saved to {conf}"),
            "Container private area was created".into(),
        ],
        Fact::Started => fixed(STARTED),
        Fact::Stopped => fixed(STOPPED),
        Fact::NothingToStop => fixed(&["Unable to stop: container is not running"]),
        Fact::Booted { booted } => vec![boot(booted)],
        Fact::Destroyed { private } => {
            vec![format!("Destroying container private area: {private}"), "Container private area was destroyed".into()]
        }
        Fact::Mounted => fixed(&["Container is mounted"]),
        Fact::Unmounted => fixed(&["Container is unmounted"]),
        Fact::AddressesDeleted { ips } => vec![format!("Deleting IP address(es): {}", list(ips))],
        Fact::AddressesAdded { ips } => vec![format!("Adding IP address(es): {}", list(ips))],
        Fact::Saved { file } => vec![format!("CT configuration saved to {file}")],
        Fact::BuiltAlready => fixed(&["It was there already and was not built again; --rebuild builds it anew"]),
        Fact::TemplateRemoved { template } => vec![format!("OS template {template} was removed")],
        Fact::Interrupted { kind, operation } => {
            vec![format!("Container is down: {}, operation {operation}, was cancelled", kind.word())]
        }
        Fact::Joined { operation } => vec![format!("It was under way already, as operation {operation}")],
        Fact::Follows { kind, operation } => vec![format!("`{kind}` follows, as operation {operation}")],
        Fact::StartedAtBoot { started, failed } if failed.is_empty() => {
            vec![format!("{started} containers were started")]
        }
        Fact::StartedAtBoot { started, failed } => {
            vec![format!("{started} containers were started; these were not: {}", list(failed))]
        }
        // Warnings have words of their own.
        _ => Vec::new(),
    }
}

/// What was not done as asked for.
fn warning(fact: &Fact, ct: &str) -> String {
    match fact {
        Fact::NotSaved => {
            "WARNING: Settings were not saved and will be resetted to original values on next start (use --save flag)"
                .into()
        }
        Fact::Killed { seconds } => format!("{ct} did not stop by itself within {seconds} s and was killed"),
        Fact::MonitorSilent { cause } => format!("{ct} was killed, because its monitor did not answer: {cause}"),
        Fact::MonitorLost => format!(
            "{ct} did not shut down in order: its monitor (vzmon) ended without a record, and took everything inside along"
        ),
        Fact::Unenforced { name, cause, runs: true } => format!("{ct}: {name} is unenforced on this host: {cause}"),
        Fact::Unenforced { name, cause, runs: false } => format!("{name} cannot be enforced on this host: {cause}"),
        Fact::AccountedOnly { names } => {
            format!("accounted only, their limits refuse nothing: {}", names.join(", "))
        }
        Fact::PerProcess { names } => {
            format!("held per process, not for the container's sum: {}", names.join(", "))
        }
        Fact::AtNextStart { names } => {
            format!("{} of the running {ct} stay as they are until its next start", names.join(" and "))
        }
        Fact::LeftOut { text } => text.clone(),
        Fact::LeftBehind { text, .. } => text.clone(),
        other => sentences(other, "").join("; "),
    }
}

fn boot(booted: &Booted) -> String {
    match booted {
        Booted::Well { init } if init == "systemd" => {
            "Container has booted: its default target is reached, no unit failed".into()
        }
        Booted::Well { init } if init == "runit" => {
            "Container has booted: runit's second stage runs, its services are up".into()
        }
        Booted::Well { .. } => "Container has booted: its default runlevel is reached".into(),
        Booted::WithFailures { init, .. } if init == "systemd" => {
            "Container has booted, but some of its units failed: `systemctl --failed` inside names them".into()
        }
        Booted::WithFailures { init, .. } if init == "openrc" => {
            "Container has booted, but some of its services crashed: `rc-status --crashed` inside names them".into()
        }
        Booted::WithFailures { services, dir, .. } => format!(
            "Container has booted, but some of its services are down: {}; `sv status {}/*` inside shows them",
            services.join(" "),
            dir.as_deref().unwrap_or("/etc/service")
        ),
        Booted::Quiet { init, seconds } => format!(
            "Container has booted as far as can be seen: its init ({init}) shows no sign of it, and nothing that it would \
             wait for has run for {seconds} s"
        ),
        Booted::Untold { init, seconds } => format!(
            "Container is started; its init ({init}) does not tell when its default runlevel is reached; it has run for \
             {seconds} s"
        ),
    }
}

fn list<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_become_the_sentences_scripts_know() {
        let done = Done {
            ctid: Some(101),
            facts: vec![
                Fact::AddressesAdded { ips: vec!["10.0.0.3".parse().unwrap()] },
                Fact::NotSaved,
                Fact::Killed { seconds: 7 },
            ],
            ..Done::default()
        };
        let done = told(done, &Paths::new("/r"));
        assert_eq!(done.messages, ["Adding IP address(es): 10.0.0.3"]);
        assert!(done.warnings[0].starts_with("WARNING: Settings were not saved"), "{done:?}");
        assert_eq!(done.warnings[1], "CT 101 did not stop by itself within 7 s and was killed");
    }

    #[test]
    fn every_fact_has_words() {
        let facts = [
            Fact::Started,
            Fact::Stopped,
            Fact::Mounted,
            Fact::LeftOut { text: "x".into() },
            Fact::AtNextStart { names: vec!["features".into()] },
            Fact::Booted { booted: Booted::Untold { init: "x".into(), seconds: 2 } },
            Fact::Booted { booted: Booted::Quiet { init: "x".into(), seconds: 2 } },
            Fact::StartedAtBoot { started: 1, failed: vec![102] },
        ];
        for fact in facts {
            let done = told(Done { facts: vec![fact.clone()], ..Done::default() }, &Paths::new("/"));
            assert!(!done.messages.join("").is_empty() || !done.warnings.join("").is_empty(), "{fact:?}");
        }
    }
}
