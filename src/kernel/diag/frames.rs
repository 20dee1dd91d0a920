//! The stream between the exporter and its asker: records, each with its length before it. Pure.

/// Room for one record: an answer has 72 bytes, SKMEMINFO, tcp_info of 280 bytes and a few small attributes; a request is
/// shorter.
pub const RECORD_MAX: usize = 4096;

const LENGTH_LEN: usize = size_of::<u32>();

/// What came is no such stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A record longer than any can be.
    #[error("a record of {0} bytes")]
    TooLong(u32),
    /// The stream ended within a record.
    #[error("cut within a record")]
    Cut,
}

/// Appends `record` to `stream`.
///
/// # Panics
/// If it is longer than [`RECORD_MAX`].
pub fn push(stream: &mut Vec<u8>, record: &[u8]) {
    assert!(record.len() <= RECORD_MAX, "a record of {} bytes", record.len());
    let length = u32::try_from(record.len()).expect("under RECORD_MAX");
    stream.extend_from_slice(&length.to_ne_bytes());
    stream.extend_from_slice(record);
}

/// Takes a stream apart as it comes.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the next record begins.
    at: usize,
}

impl Frames {
    /// More of the stream has come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next record, if all of it has come.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        let Some((length, rest)) = self.bytes[self.at..].split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_ne_bytes(*length);
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        if wanted > RECORD_MAX {
            return Err(Broken::TooLong(length));
        }
        let Some(record) = rest.get(..wanted) else { return Ok(None) };
        self.at += LENGTH_LEN + wanted;
        Ok(Some(record))
    }

    /// The stream has ended: an error if that was within a record.
    pub fn end(&self) -> Result<(), Broken> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Broken::Cut) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> Result<Vec<Vec<u8>>, Broken> {
        let mut records = Vec::new();
        while let Some(record) = frames.next()? {
            records.push(record.to_vec());
        }
        Ok(records)
    }

    #[test]
    fn an_empty_record_is_one() {
        let mut stream = Vec::new();
        push(&mut stream, &[]);
        push(&mut stream, b"ab");
        let mut frames = Frames::default();
        frames.feed(&stream);
        assert_eq!(all(&mut frames), Ok(vec![vec![], b"ab".to_vec()]));
        assert_eq!(frames.end(), Ok(()));
    }

    #[test]
    fn a_length_beyond_all_records_is_an_error_at_once() {
        let mut frames = Frames::default();
        frames.feed(&4097u32.to_ne_bytes());
        assert_eq!(frames.next(), Err(Broken::TooLong(4097)));
        frames = Frames::default();
        frames.feed(&4096u32.to_ne_bytes());
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.end(), Err(Broken::Cut));
    }

    proptest! {
        #[test]
        fn records_come_back_however_the_stream_is_cut_up(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..20),
            piece in 1usize..900,
        ) {
            let mut stream = Vec::new();
            for record in &records {
                push(&mut stream, record);
            }
            let (mut frames, mut back) = (Frames::default(), Vec::new());
            for piece in stream.chunks(piece) {
                frames.feed(piece);
                back.extend(all(&mut frames).unwrap());
            }
            prop_assert_eq!(back, records);
            prop_assert_eq!(frames.end(), Ok(()));
        }

        #[test]
        fn a_cut_stream_is_an_error(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..5),
            missing in any::<prop::sample::Index>(),
        ) {
            let (mut stream, mut last) = (Vec::new(), 0);
            for record in &records {
                last = stream.len();
                push(&mut stream, record);
            }
            let cut = last + 1 + missing.index(stream.len() - last - 1);
            let mut frames = Frames::default();
            frames.feed(&stream[..cut]);
            prop_assert_eq!(all(&mut frames).unwrap(), &records[..records.len() - 1]);
            prop_assert_eq!(frames.end(), Err(Broken::Cut));
        }

        #[test]
        fn garbage_never_panics(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let mut frames = Frames::default();
            for piece in &pieces {
                frames.feed(piece);
                let _ = all(&mut frames);
                let _ = frames.end();
            }
        }
    }
}
