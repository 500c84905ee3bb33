//! From the words of `set` and `create` to the request: every value is checked here first, so that a bad one is
//! named with its accepted form and its classic exit code, and nothing has happened yet.

use crate::{args::SettingsArgs, failure::Failure};
use std::{
    fs::File,
    io::{BufRead, IsTerminal, Read},
    os::unix::fs::OpenOptionsExt,
    str::FromStr,
};
use vz_api::wire::{Settings, SshKey, UserPasswd};
use vz_types::{
    Bytes, CtAddr, CtName, ExitCode, Hostname, SshPublicKey, UserName,
    addr::Nameserver,
    config::{Description, Feature},
    names::SearchDomain,
};

/// No authorized_keys file of a sane host is larger.
const MAX_KEY_FILE: u64 = 256 << 10;
impl SettingsArgs {
    /// The request's part, or what is wrong with which value.
    pub fn resolve(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            onboot: option(&self.onboot, |v| yes_no("--onboot", v))?,
            bootorder: option(&self.bootorder, |v| {
                v.parse().map_err(|_| Failure::value(format!("--bootorder `{v}` is not a number from 0 to 4294967295")))
            })?,
            name: option(&self.name, |v| {
                if v.is_empty() { Ok(String::new()) } else { typed::<CtName>("--name", v, ExitCode::SetName) }
            })?,
            description: option(&self.description, |v| {
                typed_with::<Description>("--description", v, ExitCode::BadValue, v)
            })?,
            disabled: option(&self.disabled, |v| yes_no("--disabled", v))?,
            hostname: option(&self.hostname, |v| typed::<Hostname>("--hostname", v, ExitCode::BadHostname))?,
            nameserver: list(&self.nameserver, |v| typed::<Nameserver>("--nameserver", v, ExitCode::BadDns))?,
            searchdomain: list(&self.searchdomain, |v| typed::<SearchDomain>("--searchdomain", v, ExitCode::BadDns))?,
            ipadd: list(&self.ipadd, |v| typed::<CtAddr>("--ipadd", v, ExitCode::BadIp))?.unwrap_or_default(),
            ipdel: list(&self.ipdel, |v| match v {
                "all" => Ok(v.to_owned()),
                _ => typed::<CtAddr>("--ipdel", v, ExitCode::BadIp)
                    .map_err(|f| f.hint("write one of the CT's addresses, or `all`")),
            })?
            .unwrap_or_default(),
            userpasswd: self.userpasswd.iter().map(|v| password(v)).collect::<Result<_, _>>()?,
            sshkeys: self.ssh_keys()?,
            diskspace: option(&self.diskspace, diskspace)?,
            diskinodes: option(&self.diskinodes, |v| {
                let hard = v.rsplit(':').next().unwrap_or(v);
                hard.parse().map_err(|_| Failure::value(format!("--diskinodes `{v}` is not a number of inodes")))
            })?,
            features: self.features()?,
            limits: self.limits.resolve()?,
            sample: None,
            reset_ub: false,
        })
    }

    fn features(&self) -> Result<std::collections::BTreeMap<String, bool>, Failure> {
        let mut out = std::collections::BTreeMap::new();
        for one in self.features.iter().flat_map(|v| v.split(',')) {
            let (name, on) = match one.split_once(':') {
                Some((n, "on")) => (n, true),
                Some((n, "off")) => (n, false),
                _ => return Err(Failure::value(format!("--features `{one}` is not of the form NAME:on or NAME:off"))),
            };
            if !Feature::ALL.iter().any(|(_, word)| *word == name) {
                let known: Vec<&str> = Feature::ALL.iter().map(|(_, word)| *word).collect();
                return Err(Failure::value(format!(
                    "--features `{name}` is not known; there are {}",
                    known.join(", ")
                )));
            }
            out.insert(name.to_owned(), on);
        }
        Ok(out)
    }

    fn ssh_keys(&self) -> Result<Vec<SshKey>, Failure> {
        let default = self.sshuser.as_deref().unwrap_or("root");
        let default = typed::<UserName>("--sshuser", default, ExitCode::BadValue)?;
        if self.sshuser.is_some() && self.sshkey.is_empty() {
            return Err(Failure::new(ExitCode::BadSyntax, "--sshuser is of no use without --sshkey"));
        }
        let mut out = Vec::new();
        for value in &self.sshkey {
            let (user, what) = match value.split_once(':') {
                // Neither a key nor an existing file is taken apart.
                Some((u, rest))
                    if UserName::from_str(u).is_ok()
                        && !SshPublicKey::begins(value)
                        && !std::path::Path::new(value).exists() =>
                {
                    (u.to_owned(), rest)
                }
                _ => (default.clone(), value.as_str()),
            };
            let text = if SshPublicKey::begins(what) {
                what.to_owned()
            } else {
                key_file(what.strip_prefix('@').unwrap_or(what))?
            };
            let mut some = false;
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                let key: SshPublicKey =
                    line.parse().map_err(|e| bad_key(what, &format!("holds a line that is no public key: {e}")))?;
                out.push(SshKey { user: user.clone(), key: key.to_string() });
                some = true;
            }
            if !some {
                return Err(bad_key(what, "holds no public key"));
            }
        }
        Ok(out)
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

fn option<T>(v: &Option<String>, f: impl Fn(&str) -> Result<T, Failure>) -> Result<Option<T>, Failure> {
    v.as_deref().map(f).transpose()
}

/// Every blank-separated word of every occurrence; absent when the option is.
fn list(v: &[String], f: impl Fn(&str) -> Result<String, Failure>) -> Result<Option<Vec<String>>, Failure> {
    if v.is_empty() {
        return Ok(None);
    }
    let words = |one: &String| match one.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] if !one.is_empty() => f(one).map(|only| vec![only]),
        words => words
            .iter()
            .map(|word| f(word))
            .collect::<Result<Vec<_>, _>>()
            // The whole argument is named, not the word that happened to be looked at first.
            .map_err(|e| f(one).err().unwrap_or(e)),
    };
    v.iter().map(words).collect::<Result<Vec<_>, _>>().map(|lists| Some(lists.concat()))
}

fn typed<T: FromStr<Err: std::fmt::Display> + std::fmt::Display>(
    option: &str,
    v: &str,
    code: ExitCode,
) -> Result<String, Failure> {
    T::from_str(v).map(|t| t.to_string()).map_err(|e| Failure::new(code, format!("{option}: {e}")))
}

fn typed_with<T: FromStr<Err: std::fmt::Display>>(
    option: &str,
    v: &str,
    code: ExitCode,
    out: &str,
) -> Result<String, Failure> {
    T::from_str(v).map(|_| out.to_owned()).map_err(|e| Failure::new(code, format!("{option}: {e}")))
}

fn yes_no(option: &str, v: &str) -> Result<bool, Failure> {
    match v {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Failure::value(format!("{option} `{v}` is not understood; write yes or no"))),
    }
}

/// `SIZE` or the classic `SOFT:HARD`, of which the hard one holds: there is no grace period. Bare numbers are KiB.
fn diskspace(v: &str) -> Result<String, Failure> {
    let mut last = None;
    for part in v.splitn(2, ':') {
        let bare = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let text = if bare { format!("{part}K") } else { part.to_owned() };
        let amount = Bytes::from_str(&text).map_err(|_| {
            Failure::value(format!(
                "--diskspace `{v}` is not a size; write a number with K, M, G or T like 10G (a bare number is KiB)"
            ))
        })?;
        last = Some(amount);
    }
    last.map(|b| b.to_string()).ok_or_else(|| Failure::value("--diskspace is empty"))
}

/// `user:password`; the password is asked for where it is missing, so that it need not be an argument.
fn password(v: &str) -> Result<UserPasswd, Failure> {
    let (user, given) = v.split_once(':').unwrap_or((v, ""));
    let user = typed::<UserName>("--userpasswd", user, ExitCode::BadValue)
        .map_err(|f| f.hint("write USER:PASSWORD, or USER alone to be asked for the password"))?;
    let password = match given {
        "" | "-" => ask(&user)?,
        given => given.to_owned(),
    };
    if password.is_empty() || password.chars().any(char::is_control) || password.len() > 1024 {
        return Err(Failure::value(format!(
            "--userpasswd: the password of {user} must be 1 to 1024 bytes without control characters"
        )));
    }
    Ok(UserPasswd { user, password })
}

fn ask(user: &str) -> Result<String, Failure> {
    let failed = |e| Failure::system(format_args!("cannot read the password of {user}"), e);
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("Password of {user}: ")).map_err(failed);
    }
    let mut line = String::new();
    std::io::stdin().lock().take(4096).read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn bad_key(what: &str, why: &str) -> Failure {
    let what: String = what.chars().take(80).collect();
    Failure::value(format!("--sshkey `{what}` {why}"))
        .hint("write a public key like `ssh-ed25519 AAAA... comment`, or the file it is in, with `USER:` before it for another user than root")
}

/// The content of a key file of the host; `-` is standard input. Never waits on a FIFO, never reads a device.
fn key_file(path: &str) -> Result<String, Failure> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        if path == "-" {
            std::io::stdin().lock().take(MAX_KEY_FILE).read_to_string(&mut text)?;
            return Ok(text);
        }
        let file = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|e| bad_key(path, &format!("is neither a public key nor a file that can be read ({e})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ000000000000000000000000000000000000000000 me@here";

    fn code(args: SettingsArgs) -> ExitCode {
        args.resolve().unwrap_err().code
    }
    fn one(v: &str) -> Option<String> {
        Some(v.to_owned())
    }

    #[test]
    fn each_bad_value_has_its_classic_exit_code() {
        for v in ["", "Yes", "1", "-1", "true"] {
            assert_eq!(code(SettingsArgs { onboot: one(v), ..Default::default() }), ExitCode::BadValue, "{v}");
        }
        for v in ["-1", "4294967296", "x", ""] {
            assert_eq!(code(SettingsArgs { bootorder: one(v), ..Default::default() }), ExitCode::BadValue, "{v}");
        }
        for v in ["101", "../x", "-x", "a b"] {
            assert_eq!(code(SettingsArgs { name: one(v), ..Default::default() }), ExitCode::SetName, "{v}");
        }
        for v in ["", "a..b", "-a", "a_b/", "a b"] {
            assert_eq!(code(SettingsArgs { hostname: one(v), ..Default::default() }), ExitCode::BadHostname, "{v}");
        }
        for v in ["10.0.0", "10.0.0.1/24", "127.0.0.1", " "] {
            assert_eq!(code(SettingsArgs { ipadd: vec![v.into()], ..Default::default() }), ExitCode::BadIp, "{v}");
        }
        assert_eq!(code(SettingsArgs { ipdel: vec!["every".into()], ..Default::default() }), ExitCode::BadIp);
        assert_eq!(code(SettingsArgs { nameserver: vec!["8.8.8".into()], ..Default::default() }), ExitCode::BadDns);
        assert_eq!(code(SettingsArgs { searchdomain: vec!["a..b".into()], ..Default::default() }), ExitCode::BadDns);
        for v in ["1X", "-5G", "", ":", "1G:"] {
            assert_eq!(code(SettingsArgs { diskspace: one(v), ..Default::default() }), ExitCode::BadValue, "{v}");
        }
        for v in ["nesting", "nesting:yes", "nfs:on", "nesting:on,", ""] {
            assert_eq!(
                code(SettingsArgs { features: vec![v.into()], ..Default::default() }),
                ExitCode::BadValue,
                "{v}"
            );
        }
    }

    #[test]
    fn disk_space_counts_kib_and_takes_the_hard_limit() {
        for (v, want) in
            [("1048576", "1G"), ("10G", "10G"), ("2.5G", "2560M"), ("1G:2G", "2G"), ("1048576:2097152", "2G")]
        {
            let s = SettingsArgs { diskspace: one(v), ..Default::default() }.resolve().unwrap();
            assert_eq!(s.diskspace.as_deref(), Some(want), "{v}");
        }
    }

    #[test]
    fn keys_come_from_the_argument_or_a_file_and_for_the_named_user() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, format!("# mine\n\n{KEY}\n{KEY}2\n")).unwrap();
        let keys = |v: String, user: Option<&str>| {
            SettingsArgs { sshkey: vec![v], sshuser: user.map(Into::into), ..Default::default() }
                .resolve()
                .map(|s| s.sshkeys)
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
        let s = SettingsArgs { nameserver: vec!["8.8.8.8 1.1.1.1".into(), "inherit".into()], ..Default::default() }
            .resolve()
            .unwrap();
        assert_eq!(s.nameserver.unwrap(), ["8.8.8.8", "1.1.1.1", "inherit"]);
        let s = SettingsArgs { nameserver: vec![String::new()], ..Default::default() }.resolve().unwrap();
        assert_eq!(s.nameserver, Some(vec![]));
        let s = SettingsArgs { name: one(""), description: one(""), ..Default::default() }.resolve().unwrap();
        assert_eq!((s.name.as_deref(), s.description.as_deref()), (Some(""), Some("")));
    }
}
