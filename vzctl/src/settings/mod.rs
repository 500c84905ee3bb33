//! Options of `set` and `create`: one for each row of the tables of settings and of limits, none written by hand. Every
//! value is checked here first, so that a bad one is named with its accepted form and its classic exit code, and nothing
//! has happened yet.

mod inside;
mod reference;

pub use reference::reference;

use crate::{failure::Failure, limits::LimitArgs};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeMap;
use vz_api::wire::{Settings, Values};
use vz_types::settings::{SETTINGS, SSHKEY, SSHUSER, SettingError, USERPASSWD};

/// Options of settings and limits as typed.
#[derive(Clone, Debug, Default)]
pub struct SettingsArgs {
    /// By the name of the row, what followed the option each time it was given.
    given: BTreeMap<&'static str, Vec<String>>,
    /// Limits.
    limits: LimitArgs,
}

/// One option with a value, which may begin with a hyphen.
pub fn option(name: &'static str, value: &'static str, help: String) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).allow_hyphen_values(true)
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let args = SETTINGS.iter().map(|row| {
            let action = if row.how.is_repeatable() { ArgAction::Append } else { ArgAction::Set };
            option(row.name, row.value, row.help.to_owned()).aliases(row.aliases).action(action)
        });
        LimitArgs::augment_args(command.args(args))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(m: &ArgMatches) -> Result<Self, clap::Error> {
        let mut out = Self::default();
        out.update_from_arg_matches(m)?;
        Ok(out)
    }
    fn update_from_arg_matches(&mut self, m: &ArgMatches) -> Result<(), clap::Error> {
        for row in SETTINGS {
            if let Some(values) = m.get_many::<String>(row.name) {
                self.given.insert(row.name, values.cloned().collect());
            }
        }
        self.limits.update_from_arg_matches(m)
    }
}

impl From<SettingError> for Failure {
    fn from(e: SettingError) -> Self {
        Self::new(e.code, format!("--{e}"))
    }
}

impl SettingsArgs {
    /// The request's part, or what is wrong with which value.
    pub fn resolve(&self) -> Result<Settings, Failure> {
        let mut values = Values::default();
        for row in SETTINGS.iter().filter(|row| row.slot.is_some()) {
            if let Some(given) = self.given.get(row.name) {
                values.0.insert(row.name, row.parse(given)?);
            }
        }
        let given = |name| self.given.get(name).map(Vec::as_slice).unwrap_or_default();
        Ok(Settings {
            values,
            userpasswd: given(USERPASSWD.name).iter().map(|v| inside::password(v)).collect::<Result<_, _>>()?,
            sshkeys: inside::ssh_keys(given(SSHKEY.name), given(SSHUSER.name).last().map(String::as_str))?,
            limits: self.limits.resolve()?,
            sample: None,
            reset_ub: false,
        })
    }
}

/// Whether anything is set at all.
pub fn is_empty(s: &Settings) -> bool {
    *s == Settings::default()
}

/// Seconds of `stop --timeout`.
pub fn timeout(v: &str) -> Result<u32, Failure> {
    v.parse()
        .ok()
        .filter(|n| (1..=3600).contains(n))
        .ok_or_else(|| Failure::value(format!("--timeout `{v}` is not a number of seconds from 1 to 3600")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::{CommandFactory, Parser};
    use vz_types::{ExitCode, settings::Value};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ000000000000000000000000000000000000000000 me@here";

    fn given(options: &[(&'static str, &[&str])]) -> SettingsArgs {
        let of = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        SettingsArgs { given: options.iter().map(|(n, w)| (*n, of(w))).collect(), ..SettingsArgs::default() }
    }
    fn code(option: &'static str, v: &str) -> ExitCode {
        given(&[(option, &[v])]).resolve().unwrap_err().code
    }
    fn list(words: &[&str]) -> Value {
        Value::List(words.iter().map(|w| (*w).to_owned()).collect())
    }

    /// A row is all a setting is named by: from it come the option of both verbs, what it sends, the columns of vzlist
    /// and its line of settings.md. That it has a key in the configuration and a field in the API's document is tested
    /// beside them.
    #[test]
    fn a_row_is_an_option_a_field_of_the_request_a_column_and_a_line_of_the_documentation() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/settings.md")).unwrap();
        assert!(page == reference(), "settings.md is out of date: run `cargo xtask gen`");
        for row in SETTINGS {
            let option = format!("--{}", row.name);
            for verb in ["create", "set"] {
                let command = Cli::command();
                let verb = command.find_subcommand(verb).unwrap();
                let arg = verb.get_arguments().find(|a| a.get_long() == Some(row.name)).unwrap();
                assert_eq!(arg.get_help().map(ToString::to_string).as_deref(), Some(row.help));
                assert_eq!(arg.get_all_aliases().unwrap_or_default(), row.aliases);
            }
            assert!(page.lines().any(|l| l.starts_with(&format!("| `{option} "))), "{option} is not in settings.md");
            for column in row.columns {
                let field = crate::list::fields::find(column.name).unwrap();
                assert_eq!((field.header, field.width), (column.header, column.width));
            }
            if row.slot.is_none() {
                continue;
            }
            let cli = Cli::try_parse_from(["vzctl", "set", "101", &option, row.example]).unwrap();
            let Verb::Set(args) = cli.verb else { panic!("no set") };
            let sent = serde_json::to_value(args.settings.resolve().unwrap_or_else(|f| panic!("{f:?}"))).unwrap();
            let names: Vec<_> = sent.as_object().unwrap().keys().collect();
            assert_eq!(names, [row.name], "{sent}");
        }
    }

    #[test]
    fn what_is_one_value_is_given_once() {
        for row in SETTINGS {
            let option = format!("--{}", row.name);
            let twice = Cli::try_parse_from(["vzctl", "set", "101", &option, row.example, &option, row.example]);
            assert_eq!(twice.is_ok(), row.how.is_repeatable(), "{option}");
        }
    }

    #[test]
    fn each_bad_value_has_its_classic_exit_code() {
        for v in ["", "Yes", "1", "-1", "true"] {
            assert_eq!(code("onboot", v), ExitCode::BadValue, "{v}");
        }
        for v in ["-1", "4294967296", "x", ""] {
            assert_eq!(code("bootorder", v), ExitCode::BadValue, "{v}");
        }
        for v in ["101", "../x", "-x", "a b"] {
            assert_eq!(code("name", v), ExitCode::SetName, "{v}");
        }
        for v in ["", "a..b", "-a", "a_b/", "a b"] {
            assert_eq!(code("hostname", v), ExitCode::BadHostname, "{v}");
        }
        for v in ["10.0.0", "10.0.0.1/24", "127.0.0.1", " "] {
            assert_eq!(code("ipadd", v), ExitCode::BadIp, "{v}");
        }
        assert_eq!(code("ipdel", "every"), ExitCode::BadIp);
        assert_eq!(code("nameserver", "8.8.8"), ExitCode::BadDns);
        assert_eq!(code("searchdomain", "a..b"), ExitCode::BadDns);
        for v in ["1X", "-5G", "", ":", "1G:"] {
            assert_eq!(code("diskspace", v), ExitCode::BadValue, "{v}");
        }
        for v in ["nesting", "nesting:yes", "nfs:on", "nesting:on,", ""] {
            assert_eq!(code("features", v), ExitCode::BadValue, "{v}");
        }
    }

    #[test]
    fn disk_space_counts_kib_and_takes_the_hard_limit() {
        for (v, want) in
            [("1048576", "1G"), ("10G", "10G"), ("2.5G", "2560M"), ("1G:2G", "2G"), ("1048576:2097152", "2G")]
        {
            let s = given(&[("diskspace", &[v])]).resolve().unwrap();
            assert_eq!(s.values.0["diskspace"], Value::Text(want.into()), "{v}");
        }
    }

    #[test]
    fn keys_come_from_the_argument_or_a_file_and_for_the_named_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, format!("# mine\n\n{KEY}\n{KEY}2\n")).unwrap();
        let keys = |v: String, user: Option<&str>| {
            let user: Vec<&str> = user.into_iter().collect();
            let mut args = given(&[("sshkey", &[&v]), ("sshuser", &user)]);
            args.given.retain(|_, words| !words.is_empty());
            args.resolve().map(|s| s.sshkeys)
        };
        let from_file = keys(file.display().to_string(), None).unwrap();
        assert_eq!(from_file.len(), 2);
        assert_eq!((from_file[0].user.as_str(), from_file[0].key.as_str()), ("root", KEY));
        assert_eq!(keys(format!("bob:{KEY}"), None).unwrap()[0].user, "bob");
        assert_eq!(keys(format!("bob:{}", file.display()), None).unwrap()[1].user, "bob");
        assert_eq!(keys(KEY.into(), Some("amy")).unwrap()[0].user, "amy");
        for bad in ["/nonexistent", "/dev/zero", "/tmp", "ssh-rsa short", "bob:"] {
            assert_eq!(keys(bad.into(), None).unwrap_err().code, ExitCode::BadValue, "{bad}");
        }
        std::fs::write(&file, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(keys(file.display().to_string(), None).is_err(), "a private key is no public one");
    }

    #[test]
    fn words_of_one_argument_are_a_list_and_an_empty_one_clears() {
        let s = given(&[("nameserver", &["8.8.8.8 1.1.1.1", "inherit"])]).resolve().unwrap();
        assert_eq!(s.values.0["nameserver"], list(&["8.8.8.8", "1.1.1.1", "inherit"]));
        let s = given(&[("nameserver", &[""])]).resolve().unwrap();
        assert_eq!(s.values.0["nameserver"], list(&[]));
        let s = given(&[("name", &[""]), ("description", &[""])]).resolve().unwrap();
        let empty = Value::Text(String::new());
        assert_eq!((&s.values.0["name"], &s.values.0["description"]), (&empty, &empty));
    }
}
