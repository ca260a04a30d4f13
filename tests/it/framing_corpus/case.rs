//! The corpus's file format; `tests/fixtures/framing/README.md` describes it.

use std::collections::BTreeSet;

/// One case.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) name: String,
    /// What the client sends, byte for byte.
    pub(super) sent: Vec<u8>,
    /// HTTP/2 frames, in place of `sent`.
    pub(super) frames: Vec<Frame>,
    /// What the app answers, byte for byte.
    pub(super) reply: Vec<u8>,
    pub(super) then: Then,
    /// What the client must get.
    pub(super) client: Vec<String>,
    /// What the app must get: every request, in order.
    pub(super) app: Vec<Arrival>,
}

/// What the app does when its answer is out.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(super) enum Then {
    #[default]
    Stay,
    Close,
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A request that must reach the app.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// `METHOD target`
    pub(super) start: String,
    /// Name and value; `-` for a header that must not be there. `body` is the body, `trailers` the trailers' lines.
    pub(super) fields: Vec<(String, Vec<u8>)>,
}

/// All cases of a file; panics where one is not well-formed.
pub(super) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut names = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("line {}: {line}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            assert!(names.insert(name), "{place}: twice");
            cases.push(Case { name: name.into(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: before the first case"));
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            ">" => case.sent.extend([unescape(rest), b"\r\n".to_vec()].concat()),
            ">>" => case.sent.extend(unescape(rest)),
            "<" => case.reply.extend([unescape(rest), b"\r\n".to_vec()].concat()),
            "<<" => case.reply.extend(unescape(rest)),
            "<close" => case.then = Then::Close,
            "=" => case.client = rest.split(' ').map(str::to_owned).collect(),
            "@" => case.arrival(rest, &place),
            "headers" | "more" | "data" | "frame" => case.frames.push(frame(mark, rest)),
            "h" => case.frames.last_mut().unwrap().payload.extend(literal(rest, &place)),
            _ => panic!("{place}: not understood"),
        }
    }
    for case in &cases {
        assert!(!case.client.is_empty(), "{}: what does the client get?", case.name);
    }
    cases
}

impl Case {
    fn arrival(&mut self, rest: &str, place: &str) {
        match rest.split_once(": ").or_else(|| rest.strip_suffix(':').map(|name| (name, ""))) {
            Some((name, value)) => {
                let last = self.app.last_mut().unwrap_or_else(|| panic!("{place}: of which request?"));
                last.fields.push((name.into(), unescape(value)));
            }
            None => self.app.push(Arrival { start: rest.into(), fields: Vec::new() }),
        }
    }
}

/// `headers 1 end`, `more 1 last`, `data 1 end hello`, `frame 8 0 0 \0\0\0\0`.
fn frame(mark: &str, rest: &str) -> Frame {
    let mut words = rest.splitn(if mark == "frame" { 4 } else { 3 }, ' ');
    let mut word = || words.next().unwrap_or_default();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let (kind, flags, stream) = match mark {
        "headers" => {
            let stream = number(word());
            (1, flags(word()), stream)
        }
        "more" => {
            let stream = number(word());
            (9, flags(word()), stream)
        }
        "data" => {
            let stream = number(word());
            (0, flags(word()) & 1, stream)
        }
        _ => {
            let kind = u8::try_from(number(word())).unwrap();
            let flags = u8::try_from(number(word())).unwrap();
            (kind, flags, number(word()))
        }
    };
    Frame { kind, flags, stream, payload: unescape(word()) }
}

fn flags(words: &str) -> u8 {
    match words {
        "end" => 5,
        "open" => 4,
        "last" => 4,
        "end+more" => 1,
        "more" => 0,
        other => panic!("flags {other:?}"),
    }
}

/// A field as HPACK's literal without indexing and without Huffman code: `name|value`.
fn literal(text: &str, place: &str) -> Vec<u8> {
    let (name, value) = text.split_once('|').unwrap_or_else(|| panic!("{place}: name|value"));
    let mut out = vec![0];
    for part in [unescape(name), unescape(value)] {
        length(&mut out, part.len());
        out.extend(part);
    }
    out
}

/// RFC 7541 §5.1, with a prefix of 7 bits.
fn length(out: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        return out.push(u8::try_from(length).unwrap());
    }
    out.push(127);
    length -= 127;
    while length >= 128 {
        out.push(u8::try_from(length % 128 + 128).unwrap());
        length /= 128;
    }
    out.push(u8::try_from(length).unwrap());
}

/// `\r \n \t \0 \s \\ \xNN`, and `\{12*text}` for repetition.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.extend(plain.as_bytes());
        let (kind, after) = escaped.split_at(1);
        rest = after;
        match kind {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "s" => out.push(b' '),
            "\\" => out.push(b'\\'),
            "x" => {
                let (digits, after) = rest.split_at(2);
                out.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            "{" => {
                let (inner, after) = rest.split_once('}').unwrap();
                let (count, text) = inner.split_once('*').unwrap();
                let count: usize = count.parse().unwrap();
                for index in 0..count {
                    let text = text.replace('%', &index.to_string());
                    out.extend(unescape(&text.replace("^", "\\r\\n")));
                }
                rest = after;
            }
            other => panic!("escape {other:?} in {text}"),
        }
    }
    out.extend(rest.as_bytes());
    out
}
