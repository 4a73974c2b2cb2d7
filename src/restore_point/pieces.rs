//! The checksum of a file, taken piece by piece.
//!
//! The second pass must find which parts of a large file changed, and read as little as it can
//! for that: with the checksum of each piece of the copy at hand, it reads the source and not
//! the copy. The checksum of the file is the sha256 of the sha256 of its pieces, one after the
//! other, so that both come from one reading.

use std::io::Read;

use sha2::{Digest, Sha256};

/// Eight pages of PostgreSQL: what one changed page costs to write, against 32 bytes of memory
/// for each.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// The checksums of a file's pieces, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Vec<[u8; 32]>);

impl Pieces {
    /// Adds the next piece; returns whether `known` has the same at this offset of the file.
    pub(super) fn push(&mut self, piece: &[u8], known: Option<&Pieces>, offset: u64) -> bool {
        let sha256 = <[u8; 32]>::from(Sha256::digest(piece));
        let index = usize::try_from(offset / PIECE_BYTES as u64).unwrap_or(usize::MAX);
        let is_known = known.and_then(|known| known.0.get(index)) == Some(&sha256);
        self.0.push(sha256);
        is_known
    }

    /// The pieces of this part of a file and of the one after it.
    pub(super) fn followed_by(mut self, mut next: Self) -> Self {
        self.0.append(&mut next.0);
        self
    }

    /// Hex, of the whole file.
    pub(super) fn checksum(&self) -> String {
        let mut whole = Sha256::new();
        for piece in &self.0 {
            whole.update(piece);
        }
        hex(&whole.finalize())
    }

    /// Hex, of all pieces.
    pub(super) fn to_hex(&self) -> String {
        hex(self.0.as_flattened())
    }

    /// None for what `to_hex` did not write.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let mut bytes = Vec::with_capacity(text.len() / 2);
        for pair in text.as_bytes().chunks(2) {
            let [high, low] = pair else { return None };
            bytes.push(digit(high)? << 4 | digit(low)?);
        }
        let (pieces, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| Self(pieces.to_vec()))
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// As many bytes as there are, up to the buffer's length.
pub(super) fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_survive_being_written_down() {
        let mut pieces = Pieces::default();
        for piece in [&b"first"[..], b"second", b""] {
            assert!(!pieces.push(piece, None, 0));
        }
        let read = Pieces::from_hex(&pieces.to_hex());
        assert_eq!(read.as_ref(), Some(&pieces));
        let mut again = Pieces::default();
        let second = PIECE_BYTES as u64;
        assert!(again.push(b"first", read.as_ref(), 0));
        assert!(!again.push(b"secund", read.as_ref(), second));
        let mut part = Pieces::default();
        assert!(part.push(b"second", read.as_ref(), second), "it is found at its offset");
        assert!(!part.push(b"second", read.as_ref(), 0));
        assert_ne!(again.checksum(), pieces.checksum());
        for wrong in ["0", "0g", "00", &pieces.to_hex()[1..]] {
            assert_eq!(Pieces::from_hex(wrong), None, "{wrong}");
        }
        assert_eq!(Pieces::from_hex(""), Some(Pieces::default()));
    }
}
