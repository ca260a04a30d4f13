//! The envelope of kruptein: a DER sequence of six octet strings. What is read may come from anybody.
//!
//! Tests: here.

/// The octet strings in their order: ciphertext, hmac, iv, salt, tag, aad.
pub(super) type Fields<'a> = [&'a [u8]; 6];

/// Why it is no envelope.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It begins like one, and ends too early.
    CutShort,
    /// Something else.
    Other,
}

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// Takes an envelope apart. Nothing may follow it.
pub(super) fn fields(bytes: &[u8]) -> Result<Fields<'_>, Fault> {
    // Shorter than the shortest salt is not even the beginning of one.
    let (mut inside, rest) = element(SEQUENCE, bytes).map_err(|fault| match (fault, bytes.get(4)) {
        (Fault::CutShort, Some(&OCTET_STRING)) => Fault::CutShort,
        _ => Fault::Other,
    })?;
    let mut out = [[].as_slice(); 6];
    for field in &mut out {
        // The whole is all there, so a part that is not is no accident of storage.
        (*field, inside) = element(OCTET_STRING, inside).map_err(|_| Fault::Other)?;
    }
    if inside.is_empty() && rest.is_empty() { Ok(out) } else { Err(Fault::Other) }
}

/// One element with this tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let (&found, bytes) = bytes.split_first().ok_or(Fault::CutShort)?;
    if found != tag {
        return Err(Fault::Other);
    }
    let (&first, bytes) = bytes.split_first().ok_or(Fault::CutShort)?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        // Four bytes of length are more than any document has.
        0x81..=0x84 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f)).ok_or(Fault::CutShort)?;
            (length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), bytes)
        }
        _ => return Err(Fault::Other),
    };
    bytes.split_at_checked(length).ok_or(Fault::CutShort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Vec<u8> {
        let mut inside = Vec::new();
        inside.extend([OCTET_STRING, 0x82, 1, 4]);
        inside.extend([7; 260]);
        inside.extend([OCTET_STRING, 0x81, 200]);
        inside.extend([8; 200]);
        for byte in 1..4 {
            inside.extend([OCTET_STRING, 1, byte]);
        }
        inside.extend([OCTET_STRING, 0]);
        let length = u16::try_from(inside.len()).unwrap().to_be_bytes();
        [&[SEQUENCE, 0x82], &length[..], &inside].concat()
    }

    #[test]
    fn an_envelope_is_taken_apart() {
        let bytes = envelope();
        let [ciphertext, hmac, iv, salt, tag, aad] = fields(&bytes).unwrap();
        assert_eq!((ciphertext, hmac), ([7; 260].as_slice(), [8; 200].as_slice()));
        assert_eq!((iv, salt, tag, aad), (&[1][..], &[2][..], &[3][..], &[][..]));
    }

    #[test]
    fn nothing_crashes_it_and_nothing_else_is_one() {
        let good = envelope();
        for length in 0..good.len() {
            let fault = fields(&good[..length]).unwrap_err();
            assert!(length < 5 || fault == Fault::CutShort, "{length}");
        }
        assert_eq!(fields(&[&good[..], &[0]].concat()), Err(Fault::Other));
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0x81, 0x84, 0x85, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                // Any answer will do.
                let _ = fields(&bad);
            }
        }
        for odd in [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &[0x30, 0x80, 0, 0], &[0x30, 0], b"{}", &[]] {
            assert!(fields(odd).is_err());
        }
    }
}
