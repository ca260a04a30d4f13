//! What is wrong with a configuration, and how it is shown. Knows no key and no rule. Tests: below, and `tests/it/config.rs`.
//!
//! A source line is shown for orientation only, so every string in it that the problem is not about is masked, and
//! strings of secret keys always are.

use super::veil::Veil;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Where in the configuration: `route[1].upstream`, counted from 0; empty when it is the file itself.
    pub key: String,
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// The cure, if there is one to name.
    pub hint: Option<String>,
    /// The source line with a caret line under it, strings masked.
    pub excerpt: Option<String>,
}

/// Everything that is wrong with a configuration, in the order of the file; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Something that is allowed and probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Problem);

impl Problem {
    /// A problem of the file as a whole, without a place in it.
    pub(super) fn of_file(file: &str, what: String, hint: &str) -> Self {
        Self {
            file: file.into(),
            key: String::new(),
            line: 0,
            column: 0,
            what,
            hint: Some(hint.to_owned()),
            excerpt: None,
        }
    }

    /// The same on one line, without the excerpt: for the log.
    pub fn to_line(&self) -> String {
        Self { excerpt: None, ..self.clone() }.to_string()
    }

    fn render(&self, f: &mut fmt::Formatter<'_>, prefix: &str) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {prefix}")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.render(f, "")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.render(f, "warning: ")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => write!(f, "error: 1 problem; nothing was started"),
            count => write!(f, "error: {count} problems; nothing was started"),
        }
    }
}

impl std::error::Error for Problems {}

/// A problem that still points into the text by bytes.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) key: String,
    pub(super) what: String,
    pub(super) hint: Option<String>,
    /// Show the source line? Not for syntax errors: there nobody knows yet what is a secret.
    pub(super) with_source: bool,
}

/// Sorts the findings by place and gives each its line, column and excerpt.
pub(super) fn locate(file: &str, text: &str, mut findings: Vec<Finding>, veils: &[Veil]) -> Vec<Problem> {
    let file: Arc<str> = file.into();
    findings.sort_by_key(|finding| finding.span.start);
    findings
        .into_iter()
        .map(|finding| {
            let at = floor_boundary(text, finding.span.start);
            let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            Problem {
                file: Arc::clone(&file),
                line: text[..line_start].matches('\n').count() + 1,
                column: text[line_start..at].chars().count() + 1,
                excerpt: finding
                    .with_source
                    .then(|| excerpt(text, line_start, &finding.span, veils))
                    .flatten(),
                key: finding.key,
                what: finding.what,
                hint: finding.hint,
            }
        })
        .collect()
}

fn excerpt(text: &str, line_start: usize, span: &Range<usize>, veils: &[Veil]) -> Option<String> {
    let line_end = text[line_start..].find('\n').map_or(text.len(), |newline| line_start + newline);
    let hidden: Vec<&Range<usize>> = veils
        .iter()
        .filter(|veil| !(veil.shy && overlaps(&veil.span, span)))
        .map(|veil| &veil.span)
        .collect();
    let (mut shown, mut carets) = (String::new(), String::new());
    let mut masked_until = 0;
    for (offset, c) in text[line_start..line_end].char_indices() {
        let at = line_start + offset;
        if let Some(veil) = hidden.iter().find(|veil| veil.contains(&at)) {
            if masked_until != veil.end {
                masked_until = veil.end;
                shown.push_str("***");
                carets.extend([if overlaps(veil, span) { '^' } else { ' ' }; 3]);
            }
            continue;
        }
        // A comment is not the problem, and may hold anything.
        if c == '#' && !veils.iter().any(|veil| veil.span.contains(&at)) {
            break;
        }
        shown.push(if c.is_control() { ' ' } else { c });
        carets.push(if span.contains(&at) { '^' } else { ' ' });
    }
    let (shown, carets) = (shown.trim_end(), carets.trim_end());
    if shown.is_empty() || carets.is_empty() || shown.chars().count() > 160 {
        return None;
    }
    Some(format!("    | {shown}\n    | {carets}"))
}

fn overlaps(left: &Range<usize>, right: &Range<usize>) -> bool {
    left.start < right.end && right.start < left.end
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(span: Range<usize>) -> Finding {
        Finding {
            span,
            key: "a.b".into(),
            what: "is wrong".into(),
            hint: Some("mend it".into()),
            with_source: true,
        }
    }

    #[test]
    fn sorted_located_and_shown_with_a_caret() {
        let text = "first = 1\n  größe = 2 # why\n";
        let problems = locate("p.toml", text, vec![finding(12..19), finding(0..5)], &[]);
        assert_eq!(
            Problems(problems).to_string(),
            "p.toml:1:1: a.b: is wrong; mend it\n    | first = 1\n    | ^^^^^\n\
             p.toml:2:3: a.b: is wrong; mend it\n    |   größe = 2\n    |   ^^^^^\nerror: 2 problems; nothing was started"
        );
    }

    #[test]
    fn veiled_values_are_masked_even_under_the_caret() {
        let text = "key = \"hunter2\" # hunter3";
        let secret = [Veil { span: 6..15, shy: false }];
        let shown = locate("p", text, vec![finding(6..15)], &secret)[0].to_string();
        assert!(shown.ends_with("    | key = ***\n    |       ^^^"), "{shown}");
        let plain = [Veil { span: 6..15, shy: true }];
        assert!(
            locate("p", text, vec![finding(0..3)], &plain)[0].to_string().ends_with("| key = ***\n    | ^^^")
        );
        assert!(
            locate("p", text, vec![finding(6..15)], &plain)[0].to_string().contains("| key = \"hunter2\"\n")
        );
    }

    #[test]
    fn a_file_problem_has_no_place() {
        let problem = Problem::of_file("p.toml", "no such file".into(), "name one");
        assert_eq!(problem.to_string(), "p.toml: no such file; name one");
    }
}
