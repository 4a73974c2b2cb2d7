//! Text in a database's own encoding, byte for byte.
//!
//! What the export reads and writes is not converted: a database whose encoding is `SQL_ASCII`
//! holds bytes of any kind, and a conversion would refuse the row or change it. Inside of this
//! module such text is a string with one character for each byte (U+0000 to U+00FF). In every
//! encoding that a server has, a byte below 0x80 is that character of ASCII and nothing else
//! (PostgreSQL manual, section 24.3.1), so that JSON, SQL and lines are read and written so.

use std::io::{Error, ErrorKind, Write};

use crate::database::runner::readable;

/// Bytes as a string with one character each.
pub(super) fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Writes the bytes that the string stands for.
///
/// # Errors
/// Those of the writer, and `InvalidData` for a character that stands for no byte.
pub(super) fn put(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(&bytes_of(text)?)
}

/// The bytes that the string stands for.
pub(super) fn bytes_of(text: &str) -> std::io::Result<Vec<u8>> {
    let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
    bytes.collect::<Result<_, _>>().map_err(|_| {
        Error::new(ErrorKind::InvalidData, "a character where a byte of the database's belongs")
    })
}

/// The same for a person, who is shown names and no values.
pub(super) fn said(text: &str, encoding: &str) -> String {
    match bytes_of(text) {
        // Its characters are the first 256 of Unicode, in their order.
        Ok(_) if encoding == "LATIN1" => text.to_owned(),
        Ok(bytes) => readable(&bytes),
        // Words of our own.
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_byte_comes_back_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put(&mut out, &text_of(&bytes)).expect("written");
            prop_assert_eq!(out, bytes);
        }
    }

    #[test]
    fn a_character_that_is_no_byte_is_refused_and_not_replaced() {
        let refused = put(&mut Vec::new(), "\u{20ac}").expect_err("an error");
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_person_is_shown_a_name_as_it_is_meant_and_a_byte_that_means_nothing_by_its_number() {
        let name = |bytes: &[u8], encoding: &str| said(&text_of(bytes), encoding);
        assert_eq!(name("größe".as_bytes(), "UTF8"), "größe");
        assert_eq!(name(b"gr\xf6sse", "LATIN1"), "größe".replace("ß", "ss"));
        assert_eq!(name(b"gr\xf6sse", "SQL_ASCII"), "gr\u{fffd}F6sse");
    }
}
