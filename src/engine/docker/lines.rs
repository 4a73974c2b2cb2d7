//! JSON values, one after the other, from a body that arrives in pieces.
//!
//! The engine writes events and the progress of a pull so, one value a line. Used by `events`
//! and `pull`; knows nothing of what the values mean.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use serde_json::Value;

use super::http::ByteStream;
use crate::engine::EngineError;

/// The longest line that is read; an event carries a container's labels, some KB at most.
const LONGEST_LINE: usize = 4 << 20;

/// The values of `bytes`, each on its line; `doing` says in errors what they are about.
pub(super) fn values(
    doing: String,
    bytes: ByteStream,
) -> BoxStream<'static, Result<Value, EngineError>> {
    let state = (bytes, Lines::default(), doing);
    stream::try_unfold(state, |(mut bytes, mut lines, doing)| async move {
        loop {
            let line = match lines.next() {
                Some(line) => line,
                None => match bytes.next().await {
                    Some(piece) => match lines.push(&piece?) {
                        Ok(()) => continue,
                        Err(reason) => return Err(EngineError::Protocol { doing, reason }),
                    },
                    None => match lines.rest() {
                        Some(rest) => rest,
                        None => return Ok(None),
                    },
                },
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line) {
                Ok(value) => Ok(Some((value, (bytes, lines, doing)))),
                Err(error) if error.is_eof() => {
                    let reason = "the connection ended within a line".to_owned();
                    Err(EngineError::Unknown { doing, reason })
                }
                Err(error) => {
                    let reason = format!("a line of its stream is no JSON: {error}");
                    Err(EngineError::Protocol { doing, reason })
                }
            };
        }
    })
    .boxed()
}

/// What has arrived and was not read as a line yet.
#[derive(Default)]
struct Lines {
    waiting: BytesMut,
    /// How much of `waiting` is known to hold no end of line.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &Bytes) -> Result<(), String> {
        if self.waiting.len() + piece.len() > LONGEST_LINE {
            return Err(format!("a line of its stream is longer than {LONGEST_LINE} bytes"));
        }
        self.waiting.extend_from_slice(piece);
        Ok(())
    }

    fn next(&mut self) -> Option<BytesMut> {
        let unsearched = self.waiting.get(self.searched..).unwrap_or_default();
        match unsearched.iter().position(|&byte| byte == b'\n') {
            Some(position) => {
                let line = self.waiting.split_to(self.searched + position + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.waiting.len();
                None
            }
        }
    }

    fn rest(&mut self) -> Option<BytesMut> {
        self.searched = 0;
        (!self.waiting.is_empty()).then(|| self.waiting.split())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(chunks: Vec<Bytes>) -> Vec<Result<Value, EngineError>> {
        let bytes = stream::iter(chunks.into_iter().map(Ok)).boxed();
        values("read".into(), bytes)
            .collect::<Vec<_>>()
            .now_or_never()
            .expect("nothing to wait for")
    }

    proptest! {
        #[test]
        fn wherever_the_chunks_are_cut_each_line_is_one_value(
            texts in prop::collection::vec(".{0,20}", 0..10),
            size in 1usize..30,
        ) {
            let sent: Vec<Value> = texts.iter().map(|text| json!({ "status": text })).collect();
            let wire: String = sent.iter().map(|value| format!("{value}\r\n")).collect();
            let chunks = wire.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let received: Vec<Value> =
                read(chunks).into_iter().map(|value| value.expect("a value")).collect();
            prop_assert_eq!(received, sent);
        }
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let read = read(vec![Bytes::from_static(b"{\"a\":1}\n{\"b\":2}")]);
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].as_ref().expect("a value"), &json!({"b": 2}));
    }

    #[test]
    fn a_line_that_breaks_off_is_unknown_and_one_that_is_no_json_is_not_understood() {
        let mut broken = read(vec![Bytes::from_static(b"{\"a\":")]);
        assert!(matches!(broken.pop(), Some(Err(EngineError::Unknown { .. }))));
        let mut other = read(vec![Bytes::from_static(b"<html>\n")]);
        assert!(matches!(other.pop(), Some(Err(EngineError::Protocol { .. }))));
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let endless = vec![Bytes::from(vec![b' '; 1 << 20]); 5];
        assert!(matches!(read(endless).pop(), Some(Err(EngineError::Protocol { .. }))));
    }
}
