//! HTTP/1.1 messages as bytes, read by code that is not the sidecar's: what both ends of it really see on the wire.

use std::io::{self, BufRead, Read};

/// Header or trailer lines in the order of the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The first value of a name, in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every line whose name a careless app could read as `prefix…`: case and separators do not count.
    pub(crate) fn folded(&self, prefix: &str) -> Vec<&(String, String)> {
        self.0.iter().filter(|(name, _)| fold(name).starts_with(&fold(prefix))).collect()
    }
}

/// ASCII lower case, and `-` for every other byte that is no letter or digit.
fn fold(name: &str) -> String {
    name.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_lowercase()) } else { '-' })
        .collect()
}

/// A message head: the exact bytes and what they say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: String,
    pub(crate) headers: Fields,
}

/// A body, and whether it came to its proper end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Fields,
    pub(crate) complete: bool,
}

/// Reads up to the empty line. `None` when the peer closed before the first byte.
pub(crate) fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        if from.read_until(b'\n', &mut bytes)? == 0 {
            return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if &bytes[before..] == b"\r\n" {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
    let start = lines.next().unwrap_or_default().to_owned();
    Ok(Some(Head { start, headers: Fields(lines.map(split_field).collect()), bytes }))
}

/// Reads the body that `headers` announce; `to_end` for a response that may be ended by the close of the connection.
pub(crate) fn read_body(from: &mut impl BufRead, headers: &Fields, to_end: bool) -> io::Result<Body> {
    if headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return read_chunked(from);
    }
    let mut bytes = Vec::new();
    let complete = match headers.get("content-length").map(|text| text.parse::<u64>().unwrap()) {
        Some(length) => {
            cut_short(from.by_ref().take(length).read_to_end(&mut bytes))? && bytes.len() as u64 == length
        }
        None if to_end => cut_short(from.read_to_end(&mut bytes))?,
        None => true,
    };
    Ok(Body { bytes, trailers: Fields::default(), complete })
}

fn read_chunked(from: &mut impl BufRead) -> io::Result<Body> {
    let mut body = Body::default();
    loop {
        let Some(size) = read_line(from)? else { return Ok(body) };
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| io::Error::other(format!("chunk size {size:?}")))?;
        if size == 0 {
            break;
        }
        let before = body.bytes.len() as u64;
        let whole = cut_short(from.by_ref().take(size).read_to_end(&mut body.bytes))?;
        if !whole || body.bytes.len() as u64 - before < size || read_line(from)?.is_none() {
            return Ok(body);
        }
    }
    loop {
        match read_line(from)? {
            None => return Ok(body),
            Some(line) if line.is_empty() => break,
            Some(line) => body.trailers.0.push(split_field(&line)),
        }
    }
    body.complete = true;
    Ok(body)
}

/// A line without its end; `None` when the connection ended first.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let ended = !cut_short(from.read_until(b'\n', &mut line))? || !line.ends_with(b"\r\n");
    Ok((!ended).then(|| String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()))
}

/// A reset counts as an end that came too early, as a closed connection does; a timeout stays an error.
fn cut_short(read: io::Result<usize>) -> io::Result<bool> {
    match read {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn split_field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}
