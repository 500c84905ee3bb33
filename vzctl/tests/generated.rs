//! What is checked in and generated, or checked in and parsed by vzd, is what it claims to be.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Manager, repository};
use std::fs;
use vz_types::ManagerConfig;

const FILES: &[&str] = &[
    "config/man/vzctl.8",
    "config/man/vzlist.8",
    "config/completion/vzctl.bash",
    "config/completion/vzlist.bash",
    "config/completion/_vzctl",
    "config/completion/_vzlist",
    "config/completion/vzctl.fish",
    "config/completion/vzlist.fish",
    "docs/reference/cli.md",
];

#[test]
fn man_pages_completions_and_reference_are_what_the_definitions_generate() {
    let m = Manager::alone();
    m.vzctl(&["man", "out"]).expect(0, "", "");
    let stale: Vec<&str> = FILES
        .iter()
        .copied()
        .filter(|f| fs::read(m.path("out").join(f)).unwrap() != fs::read(repository().join(f)).unwrap_or_default())
        .collect();
    assert!(stale.is_empty(), "stale: {stale:?}; run `vzctl man .` in the checkout");
}

#[test]
fn the_printed_completion_is_the_generated_one() {
    let m = Manager::alone();
    for (args, file) in [(&["completion", "bash"][..], "vzctl.bash"), (&["completion", "zsh", "--vzlist"], "_vzlist")] {
        let kept = fs::read_to_string(repository().join("config/completion").join(file)).unwrap();
        m.vzctl(args).expect(0, &format!("{}\n", kept.trim_end()), "");
    }
    assert_eq!(m.vzctl(&["completion", "tcsh"]).code, 20);
}

#[test]
fn the_sample_configuration_is_the_default_and_names_every_key() {
    let text = fs::read_to_string(repository().join("config/vz.toml")).unwrap();
    let parsed: ManagerConfig = toml::from_str(&text).unwrap();
    assert_eq!(parsed, ManagerConfig::default());
    // Keys that have no default are there behind `#`; with the marks removed it must parse as well, and be complete.
    let all: String = text
        .lines()
        .map(|l| {
            l.strip_prefix('#')
                .filter(|r| r.starts_with(|c: char| c.is_ascii_lowercase()) && r.contains(" = "))
                .unwrap_or(l)
        })
        .fold(String::new(), |out, l| out + l + "\n");
    let full: ManagerConfig = toml::from_str(&all).unwrap();
    assert!(full.vzmon.is_some() && full.cgroup_root.is_some(), "{full:?}");
    let table: toml::Table = toml::from_str(&toml::to_string(&full).unwrap()).unwrap();
    let sample: toml::Table = toml::from_str(&all).unwrap();
    assert_eq!(keys(&table), keys(&sample), "a key is missing in the sample");
}

fn keys(t: &toml::Table) -> std::collections::BTreeSet<String> {
    t.iter()
        .flat_map(|(k, v)| match v {
            toml::Value::Table(t) => keys(t).into_iter().map(|s| format!("{k}.{s}")).collect(),
            _ => vec![k.clone()],
        })
        .collect()
}

#[test]
fn stopping_the_unit_kills_vzd_alone() {
    let unit = fs::read_to_string(repository().join("config/vzd.service")).unwrap();
    for line in ["Type=notify", "KillMode=process", "Delegate=yes", "ExecStart=/usr/sbin/vzd"] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
}
