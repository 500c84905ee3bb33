//! Shell patterns for names: `*`, `?`, `[a-z]`, `[!a-z]` and `\` (glob(7)), over the whole text.

/// Whether all of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j) = (0, 0);
    // Where the last `*` was, and how much of the text it has swallowed: backtracking needs only that one.
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        let step = match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
                continue;
            }
            Some(_) => one(&p[i..], t[j]),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => {
                i += length;
                j += 1;
            }
            (None, Some((at, swallowed))) => {
                star = Some((at, swallowed + 1));
                i = at + 1;
                j = swallowed + 1;
            }
            (None, None) => return false,
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

/// How many characters of the pattern match `c`; none if they do not.
fn one(p: &[char], c: char) -> Option<usize> {
    match p {
        ['?', ..] => Some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => match class(rest, c) {
            Some((length, hit)) => hit.then_some(length + 1),
            // A bracket that is never closed is itself.
            None => (c == '[').then_some(1),
        },
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// The length of the class behind `[`, its `]` included, and whether `c` is in it.
fn class(p: &[char], c: char) -> Option<(usize, bool)> {
    let negated = matches!(p.first(), Some('!' | '^'));
    let first = usize::from(negated);
    // A `]` at the beginning is a member.
    let end = p.iter().enumerate().skip(first + 1).find(|(_, x)| **x == ']')?.0;
    let set = &p[first..end];
    let mut hit = false;
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            hit |= (set[i]..=set[i + 2]).contains(&c);
            i += 3;
        } else {
            hit |= set[i] == c;
            i += 1;
        }
    }
    Some((end + 1, hit != negated))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        for (p, t) in [
            ("web*", "web1.example"),
            ("*", ""),
            ("?b", "ab"),
            ("*.org", "a.b.org"),
            ("[a-c]x", "bx"),
            ("[!a]x", "bx"),
            ("a*b*c", "a-b-b-c"),
            ("\\*", "*"),
            ("[]]", "]"),
            ("[", "["),
            ("ж*", "жук"),
        ] {
            assert!(matches(p, t), "{p} {t}");
        }
        for (p, t) in
            [("web", "web1"), ("?", ""), ("[a-c]x", "dx"), ("[!b]x", "bx"), ("a*b", "ac"), ("\\*", "x"), ("", "a")]
        {
            assert!(!matches(p, t), "{p} {t}");
        }
    }
}
