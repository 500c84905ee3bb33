//! The text of `passwd(5)`, `shadow(5)`, `group(5)`, `hosts(5)` and authorized_keys: pure functions from
//! old bytes to new ones. Lines that are not ours come out byte for byte, however odd they are; a missing
//! newline at the end of the file is added when a line follows.

/// A user, as far as a line of passwd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n').filter(move |_| !text.is_empty())
}

/// A line without the carriage return of an editor that meant well.
fn plain(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_of(line: &[u8], name: &str) -> bool {
    line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b':'))
}

fn fields(line: &[u8]) -> Vec<String> {
    plain(line).split(|b| *b == b':').map(|f| String::from_utf8_lossy(f).into_owned()).collect()
}

/// The user's first line in passwd, if its numbers are numbers.
pub fn user(passwd: &[u8], name: &str) -> Option<User> {
    let f = fields(lines(passwd).find(|l| is_of(l, name))?);
    Some(User { uid: f.get(2)?.parse().ok()?, gid: f.get(3)?.parse().ok()?, home: f.get(5)?.clone() })
}

/// The id of a group.
pub fn group_id(group: &[u8], name: &str) -> Option<u32> {
    fields(lines(group).find(|l| is_of(l, name))?).get(2)?.parse().ok()
}

/// The smallest id from 1000 that is neither a user's nor a group's.
pub fn free_id(passwd: &[u8], group: &[u8]) -> Option<u32> {
    let used: Vec<u32> = lines(passwd).chain(lines(group)).filter_map(|l| fields(l).get(2)?.parse().ok()).collect();
    (1000..60_000).find(|id| !used.contains(id))
}

/// The text with one more line at its end.
pub fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut out = text.to_vec();
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    out
}

/// Replaces the first line of `name`, or adds one.
fn with_entry(text: &[u8], name: &str, change: impl Fn(Option<&[u8]>) -> String) -> Vec<u8> {
    let Some(at) = lines(text).position(|l| is_of(l, name)) else { return with_line(text, &change(None)) };
    let mut out = Vec::with_capacity(text.len() + 128);
    for (n, line) in lines(text).enumerate() {
        if n == at {
            out.extend_from_slice(change(Some(line)).as_bytes());
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
    }
    out
}

/// passwd with this in the user's password field; unchanged if it is there already.
pub fn with_password_field(passwd: &[u8], name: &str, field: &str) -> Vec<u8> {
    let same = lines(passwd).find(|l| is_of(l, name)).is_some_and(|l| fields(l).get(1).is_some_and(|f| f == field));
    if same {
        return passwd.to_vec();
    }
    with_entry(passwd, name, |line| {
        let mut f = fields(line.unwrap_or_default());
        if f.len() > 1 {
            f[1] = field.to_owned();
        }
        f.join(":")
    })
}

/// shadow with this hash, changed today. A locked account is unlocked by it, ageing rules stay.
pub fn with_shadow(shadow: &[u8], name: &str, hash: &str, days: u64) -> Vec<u8> {
    with_entry(shadow, name, |line| match line {
        None => format!("{name}:{hash}:{days}:0:99999:7:::"),
        Some(line) => {
            let mut f = fields(line);
            f.resize(f.len().max(9), String::new());
            (f[1], f[2]) = (hash.to_owned(), days.to_string());
            f.join(":")
        }
    })
}

/// hosts with `127.0.1.1` meaning the machine's own name.
pub fn hosts(text: &[u8], name: &str) -> Vec<u8> {
    let short = name.split('.').next().unwrap_or(name);
    let ours = if short == name { format!("127.0.1.1 {name}") } else { format!("127.0.1.1 {name} {short}") };
    let first_word =
        |l: &[u8]| plain(l).split(|b| b.is_ascii_whitespace()).find(|w| !w.is_empty()).unwrap_or_default().to_vec();
    let base: &[u8] =
        if text.is_empty() { b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" } else { text };
    let old = lines(base).position(|l| first_word(l) == b"127.0.1.1");
    let after = lines(base).position(|l| first_word(l) == b"127.0.0.1");
    let mut out = Vec::with_capacity(base.len() + 128);
    for (n, line) in lines(base).enumerate() {
        let is_ours = first_word(line) == b"127.0.1.1";
        if !is_ours {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        if old == Some(n) || (old.is_none() && after == Some(n)) {
            out.extend_from_slice(ours.as_bytes());
            out.push(b'\n');
        }
    }
    if old.is_none() && after.is_none() { with_line(&out, &ours) } else { out }
}

/// authorized_keys with these keys added that are not in it yet, whatever their comments say.
pub fn with_keys(text: &[u8], keys: &[String]) -> Vec<u8> {
    let mut out = text.to_vec();
    for key in keys {
        let mut words = key.split_ascii_whitespace();
        let (kind, body) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let has = lines(&out).any(|l| {
            let line = String::from_utf8_lossy(plain(l)).into_owned();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.first().is_some_and(|w| !w.starts_with('#')) && words.windows(2).any(|w| w == [kind, body])
        });
        if !has {
            out = with_line(&out, key.trim());
        }
    }
    out
}
