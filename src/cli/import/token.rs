//! JavaScript text as tokens, with every bracket's partner known. Knows no grammar beyond that. Tests: below, `tests/it/import.rs`.

use super::refusal::Refusal;
use super::scan::{Scanner, is_name_start};
use std::cell::Cell;

/// One token and where it stands (bytes of the source).
#[derive(Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A name or keyword; its text is the source's.
    Name,
    Number(f64),
    Text(String),
    /// A piece of a template: `first` begins it, `more` is followed by `${`.
    Template {
        text: String,
        first: bool,
        more: bool,
    },
    Regex,
    Mark(&'static str),
}

/// All tokens of one input.
pub(super) struct Tokens<'s> {
    pub(super) source: &'s str,
    pub(super) list: Vec<Token>,
    /// For a bracket its partner, for all else itself. What both closes and opens (in templates) knows what it opens.
    pub(super) partner: Vec<usize>,
    /// The innermost opening bracket around each token.
    pub(super) parent: Vec<Option<usize>>,
    /// Where the lines begin.
    lines: Vec<usize>,
    /// Steps that readers may still take.
    work: Cell<u32>,
}

/// Reading everything in an input of the largest size a few times over: what is nested in itself ends there.
const WORK: u32 = 4_000_000;

/// Longer marks first. `>` stands alone, so that nested type arguments end where they should.
const MARKS: &[&str] = &[
    "...", "===", "!==", "**=", "<<=", "&&=", "||=", "??=", "=>", "==", "!=", "<=", ">=", "&&", "||", "??",
    "?.", "**", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<", "{", "}", "(", ")", "[",
    "]", ";", ",", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "!", "~", "?", ":", "=", ".", "@",
];

/// After these a `/` begins a regular expression although a name stands before it.
const BEFORE_OPERAND: &[&str] = &[
    "return", "typeof", "case", "in", "of", "new", "delete", "void", "throw", "await", "yield", "else", "do",
];

impl<'s> Tokens<'s> {
    /// Reads the whole input.
    pub(super) fn read(source: &'s str) -> Result<Self, Refusal> {
        let mut scanner = Scanner::new(source);
        let mut tokens = Self {
            source,
            list: Vec::new(),
            partner: Vec::new(),
            parent: Vec::new(),
            lines: std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect(),
            work: Cell::new(WORK),
        };
        let mut open: Vec<usize> = Vec::new();
        loop {
            scanner.skip_blanks()?;
            let start = scanner.at;
            let Some(next) = scanner.peek() else { break };
            let resumes = next == '}' && open.last().is_some_and(|at| tokens.is_template(*at));
            let kind = match next {
                '\'' | '"' => Kind::Text(scanner.string(next)?),
                '`' => template(&mut scanner, true)?,
                '}' if resumes => template(&mut scanner, false)?,
                '0'..='9' => Kind::Number(scanner.number()?),
                '.' if scanner.digit_follows() => Kind::Number(scanner.number()?),
                '/' if tokens.operand_follows() => {
                    scanner.regex()?;
                    Kind::Regex
                }
                _ if is_name_start(next) => {
                    scanner.name();
                    Kind::Name
                }
                _ => Kind::Mark(mark(&mut scanner)?),
            };
            tokens.push(Token { kind, start, end: scanner.at }, &mut open)?;
        }
        match open.last() {
            Some(at) => Err(tokens.refusal(*at, "this bracket is never closed", "was everything pasted?")),
            None => Ok(tokens),
        }
    }

    fn push(&mut self, token: Token, open: &mut Vec<usize>) -> Result<(), Refusal> {
        let index = self.list.len();
        let (opens, closes) = match &token.kind {
            Kind::Mark("{" | "(" | "[") => (true, None),
            Kind::Mark(mark @ ("}" | ")" | "]")) => (false, Some(*mark)),
            Kind::Template { first, more, .. } => (*more, (!first).then_some("}")),
            _ => (false, None),
        };
        self.list.push(token);
        self.partner.push(index);
        if let Some(mark) = closes {
            match open.pop() {
                Some(at) if self.closing_of(at) == mark => {
                    self.partner[at] = index;
                    self.partner[index] = at;
                }
                Some(at) => {
                    let what = format!("expected `{}`, found `{mark}`", self.closing_of(at));
                    let (line, column) = self.place(at);
                    return Err(self.refusal(
                        index,
                        what,
                        &format!("the bracket is opened at {line}:{column}"),
                    ));
                }
                None => {
                    let what = format!("`{mark}` closes nothing");
                    return Err(self.refusal(index, what, "was the beginning left out?"));
                }
            }
        }
        self.parent.push(open.last().copied());
        if opens {
            open.push(index);
        }
        Ok(())
    }

    fn is_template(&self, at: usize) -> bool {
        matches!(self.list[at].kind, Kind::Template { .. })
    }

    fn closing_of(&self, at: usize) -> &'static str {
        match self.list[at].kind {
            Kind::Mark("(") => ")",
            Kind::Mark("[") => "]",
            _ => "}",
        }
    }

    /// Does an operand follow (so that `/` is no division)?
    fn operand_follows(&self) -> bool {
        match self.list.last() {
            None => true,
            Some(token) => match &token.kind {
                Kind::Name => BEFORE_OPERAND.contains(&&self.source[token.start..token.end]),
                Kind::Number(_) | Kind::Text(_) | Kind::Regex => false,
                Kind::Template { more, .. } => *more,
                Kind::Mark(mark) => !matches!(*mark, ")" | "]" | "}" | "++" | "--"),
            },
        }
    }

    pub(super) fn mark(&self, at: usize) -> Option<&'static str> {
        match self.list.get(at)?.kind {
            Kind::Mark(mark) => Some(mark),
            _ => None,
        }
    }

    pub(super) fn is(&self, at: usize, mark: &str) -> bool {
        self.mark(at) == Some(mark)
    }

    /// The name at `at`, keywords included.
    pub(super) fn name(&self, at: usize) -> Option<&'s str> {
        let token = self.list.get(at)?;
        (token.kind == Kind::Name).then(|| &self.source[token.start..token.end])
    }

    pub(super) fn text(&self, at: usize) -> Option<&str> {
        match &self.list.get(at)?.kind {
            Kind::Text(text) => Some(text),
            Kind::Template { text, first: true, more: false } => Some(text),
            _ => None,
        }
    }

    /// Is there a line break before the token?
    pub(super) fn begins_line(&self, at: usize) -> bool {
        let (Some(before), Some(token)) =
            (at.checked_sub(1).and_then(|at| self.list.get(at)), self.list.get(at))
        else {
            return true;
        };
        self.source[before.end..token.start].contains('\n')
    }

    /// Takes one step; no when there have been too many.
    pub(super) fn step(&self) -> bool {
        let left = self.work.get();
        self.work.set(left.saturating_sub(1));
        left > 0
    }

    /// Line and column, from 1; of the end for a token that is not there.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let start = self.list.get(at).map_or(self.source.len(), |token| token.start);
        let line = self.lines.partition_point(|begin| *begin <= start);
        let begin = line.checked_sub(1).and_then(|line| self.lines.get(line)).copied().unwrap_or(0);
        (line, self.source.get(begin..start).unwrap_or_default().chars().count() + 1)
    }

    pub(super) fn refusal(&self, at: usize, what: impl Into<String>, hint: &str) -> Refusal {
        let (line, column) = self.place(at);
        Refusal { place: Some((line, column)), what: what.into(), hint: hint.to_owned() }
    }

    /// What stands at `at`, for messages; never what a string holds.
    pub(super) fn shown(&self, at: usize) -> String {
        match self.list.get(at) {
            None => "the end of the input".to_owned(),
            Some(token) => match &token.kind {
                Kind::Text(_) => "a string".to_owned(),
                Kind::Template { .. } => "a template string".to_owned(),
                Kind::Regex => "a regular expression".to_owned(),
                _ => format!("`{}`", shorten(&self.source[token.start..token.end], 40)),
            },
        }
    }

    /// Source text on one line, at most 60 characters, with the contents of all strings left out: they may be secrets.
    pub(super) fn excerpt(&self, range: std::ops::Range<usize>) -> String {
        let mut out = String::new();
        let mut before = None;
        for token in self.list.get(range).unwrap_or_default().iter().take(60) {
            if before.is_some_and(|end| end < token.start) {
                out.push(' ');
            }
            before = Some(token.end);
            match &token.kind {
                Kind::Text(text) if text.is_empty() => out.push_str("''"),
                Kind::Text(_) => out.push_str("'…'"),
                Kind::Regex => out.push_str("/…/"),
                Kind::Number(_) if names_a_secret(&out) => out.push('…'),
                Kind::Template { text, first, more } => {
                    out.push(if *first { '`' } else { '}' });
                    out.push_str(if text.is_empty() { "" } else { "…" });
                    out.push_str(if *more { "${" } else { "`" });
                }
                _ => out.push_str(&self.source[token.start..token.end]),
            }
        }
        shorten(&out, 60)
    }
}

/// May what follows be a password?
fn names_a_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pass", "secret", "pwd", "token", "pin"].iter().any(|word| text.contains(word))
}

/// At most `most` characters, without control characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).take(most + 1).collect();
    if clean.chars().count() <= most { clean } else { clean.chars().take(most - 1).chain(['…']).collect() }
}

fn template(scanner: &mut Scanner<'_>, first: bool) -> Result<Kind, Refusal> {
    let (text, more) = scanner.template()?;
    Ok(Kind::Template { text, first, more })
}

fn mark(scanner: &mut Scanner<'_>) -> Result<&'static str, Refusal> {
    match MARKS.iter().find(|mark| scanner.rest().starts_with(**mark)) {
        // `a?.5:b` is a conditional.
        Some(&"?.") if scanner.rest()[2..].starts_with(|c: char| c.is_ascii_digit()) => {
            scanner.at += 1;
            Ok("?")
        }
        Some(mark) => {
            scanner.at += mark.len();
            Ok(mark)
        }
        None => {
            let what = format!("{:?} is no JavaScript here", scanner.peek().unwrap_or_default());
            Err(scanner.refusal(scanner.at, what, "paste the options object or the session({ … }) call"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<Kind> {
        Tokens::read(source).unwrap().list.into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn a_slash_is_what_its_place_makes_it() {
        assert_eq!(kinds("a / b / c").len(), 5);
        assert_eq!(kinds("x = /a[/\"]\\/'/gi")[2], Kind::Regex);
        assert_eq!(kinds("return /'/")[1], Kind::Regex);
        assert_eq!(kinds("1 // '\n/* ' */ / 2").len(), 3);
    }

    #[test]
    fn templates_nest() {
        let tokens = Tokens::read("`a${ {b: `c${d}`} }e`").unwrap();
        assert_eq!(tokens.partner[0], tokens.list.len() - 1);
        assert_eq!(tokens.excerpt(0..tokens.list.len()), "`…${ {b: `…${d}`} }…`");
    }

    #[test]
    fn brackets_that_do_not_match_name_both_places() {
        let said = |source: &str| Tokens::read(source).err().unwrap().to_string();
        assert!(
            said("f({\n a: 1").starts_with("1:3: this bracket is never closed"),
            "{}",
            said("f({\n a: 1")
        );
        assert!(said("{ a: [1 }").contains("1:9: expected `]`, found `}`"), "{}", said("{ a: [1 }"));
        assert!(said("{ a: [1 }").contains("1:6"));
        assert!(said("a: 1 }").starts_with("1:6: `}` closes nothing"));
    }
}
