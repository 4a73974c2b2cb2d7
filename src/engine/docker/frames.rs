//! Standard output and standard error, told apart again.
//!
//! The engine interleaves both on one connection, each piece behind eight bytes: the stream,
//! three zeros, the length as a big-endian `u32` (Engine API v1.41, "Stream format"). Used by
//! `exec` and `logs`. A frame is handed on piece by piece as it arrives, never collected: its
//! length may be anything up to 4 GiB.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::http::ByteStream;
use crate::engine::{EngineError, Frame};

/// The frames of `bytes`; `doing` says in errors what they are the output of.
pub(super) fn frames(
    doing: String,
    bytes: ByteStream,
) -> BoxStream<'static, Result<Frame, EngineError>> {
    let state = (bytes, Demux::default(), Bytes::new(), doing);
    stream::try_unfold(state, |(mut bytes, mut demux, mut chunk, doing)| async move {
        loop {
            match demux.next(&mut chunk) {
                Ok(Some(frame)) => return Ok(Some((frame, (bytes, demux, chunk, doing)))),
                Ok(None) => {}
                Err(reason) => return Err(EngineError::Protocol { doing, reason }),
            }
            match bytes.next().await {
                Some(piece) => chunk = piece?,
                None if demux.is_between_frames() => return Ok(None),
                None => {
                    let reason = "the connection ended within a frame".to_owned();
                    return Err(EngineError::Unknown { doing, reason });
                }
            }
        }
    })
    .boxed()
}

/// Where in the frames the bytes read so far have led.
#[derive(Debug, Default)]
struct Demux {
    header: Vec<u8>,
    source: Source,
    left: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Source {
    #[default]
    Stdout,
    Stderr,
    /// The engine's own words about why the stream ends here.
    Engine,
}

const HEADER_LENGTH: usize = 8;

impl Demux {
    /// Takes the next piece of a frame off `chunk`; `None` when `chunk` is used up.
    fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Frame>, String> {
        while !chunk.is_empty() {
            if self.left == 0 {
                let missing = HEADER_LENGTH - self.header.len();
                self.header.extend_from_slice(&chunk.split_to(missing.min(chunk.len())));
                if self.header.len() == HEADER_LENGTH {
                    self.read_header()?;
                }
                continue;
            }
            let piece = chunk.split_to(self.left.min(chunk.len()));
            self.left -= piece.len();
            return match self.source {
                Source::Stdout => Ok(Some(Frame::Stdout(piece))),
                Source::Stderr => Ok(Some(Frame::Stderr(piece))),
                Source::Engine => {
                    Err(format!("it ended the stream: {}", String::from_utf8_lossy(&piece)))
                }
            };
        }
        Ok(None)
    }

    fn is_between_frames(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }

    fn read_header(&mut self) -> Result<(), String> {
        let &[source, 0, 0, 0, a, b, c, d] = self.header.as_slice() else {
            return Err(format!("expected the head of a frame, found {:02x?}", self.header));
        };
        self.source = match source {
            // 0 is standard input, which the engine documents as written on standard output.
            0 | 1 => Source::Stdout,
            2 => Source::Stderr,
            3 => Source::Engine,
            other => return Err(format!("expected stream 0 to 3, found {other}")),
        };
        self.left = u32::from_be_bytes([a, b, c, d]) as usize;
        self.header.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// Each frame's stream and payload, as the engine writes it.
    fn wire(frames: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (is_stderr, payload) in frames {
            bytes.extend([1 + u8::from(*is_stderr), 0, 0, 0]);
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
        }
        bytes
    }

    fn chunks(bytes: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        ends.iter()
            .map(|&end| Bytes::copy_from_slice(&bytes[std::mem::replace(&mut start, end)..end]))
            .collect()
    }

    fn read(chunks: Vec<Bytes>) -> Vec<Result<Frame, EngineError>> {
        let bytes = stream::iter(chunks.into_iter().map(Ok)).boxed();
        frames("read".into(), bytes)
            .collect::<Vec<_>>()
            .now_or_never()
            .expect("nothing to wait for")
    }

    /// The payloads of one stream, in a row.
    fn joined(frames: &[(bool, Vec<u8>)], wanted: bool) -> Vec<u8> {
        let of_stream = frames.iter().filter(|(is_stderr, _)| *is_stderr == wanted);
        of_stream.flat_map(|(_, payload)| payload.clone()).collect()
    }

    proptest! {
        #[test]
        fn wherever_the_chunks_are_cut_both_streams_come_out_whole(
            sent in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut received = Vec::new();
            for frame in read(chunks(&wire(&sent), &cuts)) {
                received.push(match frame.expect("a frame") {
                    Frame::Stdout(bytes) => (false, bytes.to_vec()),
                    Frame::Stderr(bytes) => (true, bytes.to_vec()),
                });
            }
            prop_assert_eq!(joined(&received, false), joined(&sent, false));
            prop_assert_eq!(joined(&received, true), joined(&sent, true));
        }

        #[test]
        fn a_stream_that_is_cut_within_a_frame_says_so(
            payload in prop::collection::vec(any::<u8>(), 1..40),
            lost in any::<prop::sample::Index>(),
        ) {
            let bytes = wire(&[(false, payload)]);
            let kept = 1 + lost.index(bytes.len() - 1);
            let last = read(vec![Bytes::copy_from_slice(&bytes[..kept])]).pop();
            prop_assert!(last.is_some_and(|last| last.is_err_and(|error| error.is_unknown())));
        }

        #[test]
        fn bytes_that_are_no_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(vec![Bytes::from(bytes)]);
        }
    }

    #[test]
    fn raw_output_is_not_taken_for_frames() {
        let read = read(vec![Bytes::from_static(b"hello, world\n")]);
        assert!(matches!(read.as_slice(), [Err(EngineError::Protocol { .. })]), "{read:?}");
    }

    #[test]
    fn the_engines_own_frame_is_an_error_with_its_words() {
        let mut read = read(vec![Bytes::from_static(b"\x03\0\0\0\0\0\0\x04lost")]);
        let error = read.pop().expect("one").expect_err("an error").to_string();
        assert!(error.contains("it ended the stream: lost"), "{error}");
    }
}
