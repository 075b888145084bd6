//! Values out of the bytes of a fuzzer. Where they have ended everything is zero.

/// What is left of the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next ones; fewer if there are no more.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut array = [0; COUNT];
        let taken = self.take(COUNT);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below this one, out of a byte.
    pub(crate) fn below(&mut self, end: u8) -> u8 {
        self.u8() % end
    }

    /// Mostly a small number; now and then any.
    pub(crate) fn number(&mut self) -> u64 {
        match self.u16() {
            u16::MAX => self.u64(),
            small => small.into(),
        }
    }

    /// Mostly one of a few threads; now and then any.
    pub(crate) fn tid(&mut self) -> u32 {
        match self.u8() {
            u8::MAX => self.u32(),
            small => u32::from(small % 8),
        }
    }
}
