//! Reads a build's log as it is written: which stage it is in, how far, and afterwards what went wrong.
//! What mmdebstrap and apt say is in two tables.

/// A row of [`STAGES`]: how its first log line begins, its name, and the percents it spans.
struct Stage {
    line: &'static str,
    name: &'static str,
    from: u8,
    to: u8,
    /// How log lines begin that each mean one package further in this stage; every package passes each of them.
    ticks: &'static [&'static str],
}

const STAGES: &[Stage] = &[
    Stage { line: "I: running apt-get update", name: "package lists", from: 2, to: 8, ticks: &[] },
    Stage { line: "I: downloading packages", name: "download", from: 8, to: 30, ticks: &["Get:"] },
    Stage { line: "I: extracting archives", name: "extract", from: 30, to: 34, ticks: &[] },
    Stage {
        line: "I: installing essential packages",
        name: "essential packages",
        from: 34,
        to: 50,
        ticks: &["Unpacking ", "Setting up "],
    },
    Stage {
        line: "I: installing remaining packages",
        name: "packages",
        from: 50,
        to: 88,
        ticks: &["Unpacking ", "Setting up "],
    },
    Stage { line: "I: cleaning package lists", name: "clean up", from: 88, to: 89, ticks: &[] },
];

/// Where a build is.
#[derive(Default)]
pub struct Progress {
    stage: Option<&'static Stage>,
    done: u32,
    total: u32,
    shown: u8,
}

impl Progress {
    /// Takes a log line in. `Some`: stage and percent to report.
    pub fn line(&mut self, line: &str) -> Option<(&'static str, u8)> {
        if let Some(stage) = STAGES.iter().find(|s| line.starts_with(s.line)) {
            (self.stage, self.done, self.shown) = (Some(stage), 0, stage.from);
            return Some((stage.name, stage.from));
        }
        // "0 upgraded, 117 newly installed, 0 to remove and 0 not upgraded."
        if let Some((count, _)) = line.split_once(" newly installed") {
            self.total = count.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
        let stage = self.stage?;
        if !stage.ticks.iter().any(|t| line.starts_with(t)) {
            return None;
        }
        self.done += 1;
        let (span, all) = (u32::from(stage.to - stage.from), (self.total * stage.ticks.len() as u32).max(1));
        let percent = stage.from + (span * self.done.min(all) / all) as u8;
        (percent > self.shown).then(|| {
            self.shown = percent;
            (stage.name, percent)
        })
    }
}

/// What a failed installation's log says went wrong.
pub struct Cause {
    /// A sentence.
    pub text: String,
    /// The disk ran full.
    pub no_space: bool,
}

/// Words of apt and dpkg, and what they mean. `{}` becomes the mirror.
const CAUSES: &[(&str, &str)] = &[
    ("No space left on device", "the disk is full"),
    ("NO_PUBKEY", "the mirror {} signs with a key this host does not have; install a newer debian-archive-keyring"),
    ("is not signed", "the suite on the mirror {} is not signed by a key of this host's debian-archive-keyring"),
    ("Temporary failure resolving", "the mirror {} cannot be reached: its name cannot be resolved"),
    ("Could not resolve", "the mirror {} cannot be reached: its name cannot be resolved"),
    ("Connection refused", "the mirror {} cannot be reached: it refuses the connection"),
    ("Network is unreachable", "the mirror {} cannot be reached: this host has no route to it"),
    ("No route to host", "the mirror {} cannot be reached: this host has no route to it"),
    ("connection timed out", "the mirror {} cannot be reached: it does not answer"),
    ("Could not connect", "the mirror {} cannot be reached"),
    ("Unable to connect", "the mirror {} cannot be reached"),
    ("does not have a Release file", "the mirror {} does not have this suite"),
    ("is not valid yet", "the mirror's signature is from the future: check this host's clock"),
    ("is expired", "the mirror {} is out of date"),
    ("Unable to locate package", "the suite does not have a package the recipe names"),
    ("has no installation candidate", "the suite does not have a package the recipe names"),
    ("unmet dependencies", "the packages the recipe names cannot be installed together"),
];

/// Finds the cause in the log's last lines.
pub fn cause(lines: &[String], mirror: &str) -> Cause {
    for (words, meaning) in CAUSES {
        if let Some(line) = lines.iter().find(|l| l.contains(words)) {
            let mut text = meaning.replace("{}", mirror);
            if meaning.contains("a package the recipe names") {
                text = format!("{text} ({})", line.trim_start_matches("E: "));
            }
            return Cause { text, no_space: *words == CAUSES[0].0 };
        }
    }
    let error = lines.iter().find_map(|l| l.strip_prefix("E: ")).or(lines.last().map(String::as_str));
    Cause { text: error.unwrap_or("the installation ended without a word").to_owned(), no_space: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_only_grow_and_stay_in_their_stage() {
        let mut p = Progress::default();
        assert_eq!(p.line("Get:1 http://m x"), None);
        assert_eq!(p.line("I: running apt-get update..."), Some(("package lists", 2)));
        assert_eq!(p.line("I: installing remaining packages inside the chroot..."), Some(("packages", 50)));
        assert_eq!(p.line("0 upgraded, 10 newly installed, 0 to remove and 0 not upgraded."), None);
        let seen: Vec<u8> = (0..30).filter_map(|_| p.line("Setting up x (1) ...")).map(|(_, n)| n).collect();
        assert!(seen.windows(2).all(|w| w[0] < w[1]) && *seen.last().unwrap() == 88, "{seen:?}");
    }

    #[test]
    fn the_cause_is_named_in_words_an_operator_understands() {
        let lines = |l: &[&str]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let c = cause(
            &lines(&[
                "Err:1 http://m/debian bookworm InRelease",
                "  Temporary failure resolving 'm'",
                "E: apt-get update failed",
            ]),
            "http://m/debian",
        );
        assert!(c.text.contains("http://m/debian") && c.text.contains("resolved"), "{}", c.text);
        let c = cause(&lines(&["E: Unable to locate package nosuch"]), "m");
        assert!(c.text.contains("nosuch"), "{}", c.text);
        assert!(cause(&lines(&["dpkg: error: No space left on device"]), "m").no_space);
        assert_eq!(cause(&lines(&["x", "E: odd"]), "m").text, "odd");
    }
}
