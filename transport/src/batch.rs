//! What goes to a wire together: small frames copied behind one another, and between them pieces of large messages that are not copied.

use bytes::{BufMut, BytesMut};

/// Bytes in the order in which they are to be written. An empty one to begin with.
#[derive(Debug, Default)]
pub struct Batch {
    /// What was copied; more is appended here.
    pub(crate) bytes: BytesMut,
    /// Each stands before this place of `bytes`.
    pieces: Vec<(usize, BytesMut)>,
    pieces_bytes: usize,
}

impl Batch {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.pieces_bytes
    }

    /// True if there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.pieces.is_empty()
    }

    /// All of it, copied together if there is anything to copy.
    pub fn into_bytes(self) -> BytesMut {
        if self.pieces.is_empty() {
            return self.bytes;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.parts().for_each(|part| whole.put_slice(part));
        whole
    }

    /// What lies together, in order. Parts may be empty.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.pieces.iter().map(|(at, _)| *at));
        let copied = starts.zip(self.pieces.iter()).map(|(from, (to, _))| &self.bytes[from..*to]);
        let last = self.pieces.last().map_or(0, |(at, _)| *at);
        copied.zip(&self.pieces).flat_map(|(copied, (_, piece))| [copied, piece]).chain([&self.bytes[last..]])
    }

    pub(crate) fn has_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
        self.pieces_bytes = 0;
    }

    pub(crate) fn push_piece(&mut self, piece: BytesMut) {
        self.pieces_bytes += piece.len();
        self.pieces.push((self.bytes.len(), piece));
    }

    /// Moves all of `other` to the end.
    pub(crate) fn append(&mut self, other: &mut Batch) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.pieces_bytes += other.pieces_bytes;
        self.pieces.extend(other.pieces.drain(..).map(|(at, piece)| (before + at, piece)));
        other.clear();
    }

    /// Its pieces, each with what was copied before it and after the one before.
    pub(crate) fn take_pieces(&mut self) -> impl Iterator<Item = (&[u8], BytesMut)> {
        self.pieces_bytes = 0;
        let (bytes, mut from) = (&self.bytes, 0);
        self.pieces.drain(..).map(move |(at, piece)| (&bytes[std::mem::replace(&mut from, at)..at], piece))
    }
}

impl From<BytesMut> for Batch {
    fn from(bytes: BytesMut) -> Self {
        Batch { bytes, ..Batch::default() }
    }
}
