//! The host's own apt sources: templates come from the mirror this host already uses. Understands
//! both formats of `sources.list(5)`, picks the stanzas that are Debian's own archive among whatever
//! else is configured, and maps them to the suite a recipe asks for.

use super::recipe::{Pocket, Recipe};
use std::path::Path;

/// One archive with the suites it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// URIs, as written.
    pub uris: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// `Signed-By`: absolute path of a keyring, or an inline key (continuation lines included).
    pub signed_by: Option<String>,
}

/// What a template is installed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Ready for mmdebstrap, deb822.
    pub sources: String,
    /// The mirror of the main suite, for messages.
    pub mirror: String,
    /// Keyrings named by the sources.
    pub keyrings: Vec<String>,
    /// Sentences for the build's log.
    pub notes: Vec<String>,
}

/// Keyring of Debian's archive, on the host and in the template.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian's releases by name, oldest first; `stable` and friends count as well.
const DEBIAN_SUITES: &[&str] = &[
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
];

/// Reads every source below `etc_apt`. Files that cannot be read count as absent.
pub fn read_host(etc_apt: &Path) -> Vec<Source> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(dir) = std::fs::read_dir(etc_apt.join("sources.list.d")) {
        let mut more: Vec<_> = dir.flatten().map(|e| e.path()).collect();
        more.sort();
        files.extend(more);
    }
    let mut out = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => out.extend(text.lines().filter_map(parse_line)),
            Some("sources") => out.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    for source in &mut out {
        source.uris = source.uris.iter().filter_map(|u| plain_uri(u)).collect();
    }
    out.retain(|s| !s.uris.is_empty());
    out
}

/// `mirror+file:` lists (cloud images) stand for the first mirror they name; media are no mirror.
fn plain_uri(uri: &str) -> Option<String> {
    if let Some(list) = uri.strip_prefix("mirror+file:") {
        let text = std::fs::read_to_string(list.trim_start_matches("//")).ok()?;
        let first =
            text.lines().find_map(|l| l.split('#').next().unwrap_or("").split_whitespace().next().map(str::to_owned));
        return first.filter(|u| u.contains(":/"));
    }
    ["http:", "https:", "file:"].iter().any(|p| uri.starts_with(p)).then(|| uri.to_owned())
}

/// `deb [options] uri suite component...`.
fn parse_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(r) => r.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
    Some(Source { uris: vec![uri], suites: vec![suite], components: words.collect(), signed_by })
}

/// Stanzas of `Key: value` with continuation lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut out = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain(std::iter::once("")) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            out.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    out
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let get = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let list = |key: &str| get(key).unwrap_or("").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let off = get("enabled")
        .is_some_and(|v| ["no", "false", "0", "off", "without", "disable"].contains(&v.to_ascii_lowercase().as_str()));
    if off || !list("types").iter().any(|t| t == "deb") {
        return None;
    }
    Some(Source {
        uris: list("uris"),
        suites: list("suites"),
        components: list("components"),
        signed_by: get("signed-by").map(str::to_owned).filter(|s| !s.trim().is_empty()),
    })
}

/// Whether a suite is one of Debian's, and which pocket of it.
fn debian_suite(suite: &str) -> Option<Option<Pocket>> {
    let known = |s: &str| DEBIAN_SUITES.contains(&s);
    if known(suite) {
        return Some(None);
    }
    if let Some(base) = suite.strip_suffix("-security").or_else(|| suite.strip_suffix("/updates")) {
        return known(base).then_some(Some(Pocket::Security));
    }
    suite.strip_suffix("-updates").filter(|b| known(b)).map(|_| Some(Pocket::Updates))
}

/// How sure we are that a source is Debian's own archive: third parties like to reuse its suite names.
fn score(source: &Source, uri: &str) -> i32 {
    let path = uri.split_once("://").map_or(uri, |(_, r)| r).trim_end_matches('/');
    let host = path.split('/').next().unwrap_or("");
    let keyring = source.signed_by.as_deref().unwrap_or("");
    let mut n = 0;
    n += if host.ends_with("debian.org") { 8 } else { 0 };
    n += if keyring.contains("debian-archive") {
        4
    } else if keyring.is_empty() {
        0
    } else {
        -4
    };
    n += if path.ends_with("/debian") || path.ends_with("/debian-security") { 2 } else { 0 };
    n += if source.suites.iter().any(|s| s.ends_with("-updates")) { 1 } else { 0 };
    n
}

/// The best source of one pocket with its URI.
fn pick(host: &[Source], pocket: Option<Pocket>) -> Option<(&Source, &str)> {
    let mut best: Option<(i32, &Source, &str)> = None;
    for source in host {
        let serves = source.components.iter().any(|c| c == "main")
            && source.suites.iter().any(|s| debian_suite(s) == Some(pocket));
        for uri in source.uris.iter().filter(|_| serves) {
            let n = score(source, uri);
            if best.is_none_or(|(b, ..)| n > b) {
                best = Some((n, source, uri));
            }
        }
    }
    best.map(|(_, s, u)| (s, u))
}

/// Maps a recipe to the host's mirror. `None`: the host names no Debian archive and the recipe neither.
pub fn archive(recipe: &Recipe, host: &[Source]) -> Option<Archive> {
    let suite = recipe.suite.as_ref()?.as_str();
    let components: Vec<&str> = recipe.components.iter().map(|c| c.as_str()).collect();
    let fallback = Source::default();
    let (main, mirror) = match &recipe.mirror {
        Some(uri) => (&fallback, uri.as_str()),
        None => pick(host, None)?,
    };
    let mut out =
        Archive { sources: String::new(), mirror: mirror.to_owned(), keyrings: Vec::new(), notes: Vec::new() };
    let mut suites = vec![suite.to_owned()];
    if recipe.pockets.contains(&Pocket::Updates) {
        suites.push(format!("{suite}-updates"));
    }
    out.push(mirror, &suites, &components, main);
    if recipe.pockets.contains(&Pocket::Security) {
        match pick(host, Some(Pocket::Security)) {
            Some((source, uri)) => out.push(uri, &[format!("{suite}-security")], &components, source),
            None => {
                out.notes.push("the host's apt sources name no mirror of the security archive: built without it".into())
            }
        }
    }
    Some(out)
}

impl Archive {
    fn push(&mut self, uri: &str, suites: &[String], components: &[&str], like: &Source) {
        let keyring = like.signed_by.clone().unwrap_or_else(|| DEBIAN_KEYRING.to_owned());
        if !self.sources.is_empty() {
            self.sources.push('\n');
        }
        self.sources.push_str(&format!(
            "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: {}\nSigned-By: {keyring}\n",
            suites.join(" "),
            components.join(" "),
        ));
        if keyring.starts_with('/') && !self.keyrings.contains(&keyring) {
            self.keyrings.push(keyring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(extra: &str) -> Recipe {
        let text = format!(
            "description = 'x'\nsuite = 'trixie'\npockets = ['updates', 'security']\ninit = 'systemd'\n{extra}"
        );
        Recipe::parse(Path::new("x.toml"), &text).unwrap()
    }

    #[test]
    fn the_hosts_mirror_is_used_and_third_parties_are_not() {
        let mut host: Vec<Source> = [
            "deb [signed-by=/usr/share/keyrings/zabbix.gpg] https://repo.example/zabbix/debian bookworm main",
            "deb https://download.example/linux/debian bookworm stable",
            "# deb http://old.example/debian bookworm main",
            "deb-src http://near.example/debian bookworm main",
            "deb http://near.example/debian bookworm main contrib",
            "deb http://sec.example/debian-security/ bookworm-security main",
        ]
        .iter()
        .filter_map(|l| parse_line(l))
        .collect();
        let a = archive(&recipe(""), &host).unwrap();
        assert_eq!(a.mirror, "http://near.example/debian");
        assert!(a.sources.contains("Suites: trixie trixie-updates\n"), "{}", a.sources);
        assert!(
            a.sources.contains("URIs: http://sec.example/debian-security/\nSuites: trixie-security\n"),
            "{}",
            a.sources
        );
        host.truncate(2);
        host.retain(|s| s.components == ["stable"]);
        assert_eq!(archive(&recipe(""), &host), None);
        let own = archive(&recipe("mirror = 'http://own.example/debian'"), &host).unwrap();
        assert_eq!(own.mirror, "http://own.example/debian");
        assert_eq!(own.notes.len(), 1);
    }

    #[test]
    fn deb822_with_comments_continuations_and_disabled_stanzas() {
        let text = "Types: deb\n# a comment\nURIs: http://m.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\nEnabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\nTypes: deb-src\nURIs: http://src.example/\nSuites: bookworm\nComponents: main\n";
        let got = parse_deb822(text);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].suites, ["bookworm", "bookworm-updates"]);
        assert!(got[0].signed_by.as_deref().unwrap().contains("\n abc"));
    }
}
