//! What the doctor has to say: problems, warnings, and what is in order. Tests: below.

use std::fmt::Write as _;

/// Everything that was found, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

#[derive(Debug)]
struct Finding {
    level: Level,
    what: String,
    /// Why it matters; empty for what is in order.
    why: String,
    /// What to do: a config key or a command. A line that begins with a tab is a command, and stays whole.
    cure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Problem,
    Warning,
    Ok,
}

/// Columns of a terminal that a person reads on.
const WIDTH: usize = 80;
/// Before the further lines of a reason or a cure.
const INDENT: &str = "          ";

impl Findings {
    pub(super) fn problem(&mut self, what: impl Into<String>, why: &str, cure: &str) {
        self.add(Level::Problem, what.into(), why, cure);
    }

    pub(super) fn warning(&mut self, what: impl Into<String>, why: &str, cure: &str) {
        self.add(Level::Warning, what.into(), why, cure);
    }

    pub(super) fn ok(&mut self, what: impl Into<String>) {
        self.add(Level::Ok, what.into(), "", "");
    }

    pub(super) fn has_problem(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Problem)
    }

    /// What `other` has comes after.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Problems first; commands are not broken into lines, so that they can be copied.
    pub(super) fn render(&self) -> String {
        let mut out = String::from("Findings\n");
        let mut sorted: Vec<&Finding> = self.0.iter().collect();
        sorted.sort_by_key(|finding| finding.level);
        for Finding { level, what, why, cure } in sorted {
            let word = match level {
                Level::Problem => "problem",
                Level::Warning => "warning",
                Level::Ok => "ok",
            };
            out.push_str(&wrapped(&format!("{word}: {what}"), "", "    "));
            if !why.is_empty() {
                out.push_str(&wrapped(why, "    why:  ", INDENT));
            }
            for (line, first) in
                cure.lines().zip(std::iter::once("    cure: ").chain(std::iter::repeat(INDENT)))
            {
                match line.strip_prefix('\t') {
                    // Writing to a String cannot fail.
                    Some(command) => drop(writeln!(out, "{INDENT}{command}")),
                    None => out.push_str(&wrapped(line, first, INDENT)),
                }
            }
        }
        let count = |level: Level| self.0.iter().filter(|finding| finding.level == level).count();
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        let _ =
            writeln!(out, "{problems} problem{}, {warnings} warning{}", plural(problems), plural(warnings));
        out
    }

    fn add(&mut self, level: Level, what: String, why: &str, cure: &str) {
        self.0.push(Finding { level, what, why: why.to_owned(), cure: cure.to_owned() });
    }
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Broken at blanks; the first line begins with `first`, the others with `next`.
fn wrapped(text: &str, first: &str, next: &str) -> String {
    let mut out = String::from(first);
    let mut width = first.chars().count();
    let mut is_start = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !is_start && width + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(next);
            width = next.chars().count();
            is_start = true;
        }
        if !is_start {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
        is_start = false;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first_and_lines_stay_short() {
        let mut findings = Findings::default();
        findings.ok("all is well");
        let command = "command ".repeat(20);
        findings.warning(
            "odd",
            "a word ".repeat(40).trim(),
            &format!("{}:\n\t{command}\nand wait", "do so ".repeat(40).trim()),
        );
        assert!(!findings.has_problem());
        findings.problem("bad", "because", "mend it");
        assert!(findings.has_problem());
        let text = findings.render();
        let starts: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(
            starts,
            ["Findings", "problem: bad", "warning: odd", "ok: all is well", "1 problem, 1 warning"]
        );
        let short = |line: &str| line.chars().count() <= WIDTH || line == format!("{INDENT}{command}");
        assert!(text.lines().all(short), "{text}");
        assert!(text.contains(&format!("do so:\n{INDENT}{command}\n{INDENT}and wait\n")), "{text}");
        assert!(text.contains("    why:  because\n    cure: mend it\n"), "{text}");
    }
}
