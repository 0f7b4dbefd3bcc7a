//! A ring of samples addressed by position on an endless grid.

/// Holds the last positions written, up to its capacity. Positions that were never written are the owner's to clear.
#[derive(Debug, Clone)]
pub struct Samples {
    ring: Vec<i16>,
}

impl Samples {
    /// All zero.
    pub fn new(capacity: usize) -> Self {
        Self { ring: vec![0; capacity] }
    }

    /// Positions held.
    pub fn capacity(&self) -> usize {
        self.ring.len()
    }

    fn split(&self, at: i64, len: usize) -> (usize, usize) {
        // A division; rounding up to a power of two instead would cost a recorded call 10 kB.
        let start = at.rem_euclid(self.ring.len() as i64) as usize;
        (start, len.min(self.ring.len() - start))
    }

    /// Writes samples from `at` on; no more than the capacity.
    pub fn write(&mut self, at: i64, samples: &[i16]) {
        let (start, first) = self.split(at, samples.len());
        self.ring[start..start + first].copy_from_slice(&samples[..first]);
        self.ring[..samples.len() - first].copy_from_slice(&samples[first..]);
    }

    /// The `len` positions from `at` on, to be written in up to two pieces; no more than the capacity.
    pub fn slices_mut(&mut self, at: i64, len: usize) -> (&mut [i16], &mut [i16]) {
        let (start, first) = self.split(at, len);
        let (before, behind) = self.ring.split_at_mut(start);
        (&mut behind[..first], &mut before[..len - first])
    }

    /// Zeros from `from` up to `to`; no more than the capacity.
    pub fn clear(&mut self, from: i64, to: i64) {
        let len = (to - from).max(0) as usize;
        let (start, first) = self.split(from, len);
        self.ring[start..start + first].fill(0);
        self.ring[..len - first].fill(0);
    }

    /// The samples from `at` on, in up to two pieces; no more than the capacity.
    pub fn slices(&self, at: i64, len: usize) -> (&[i16], &[i16]) {
        let (start, first) = self.split(at, len);
        (&self.ring[start..start + first], &self.ring[..len - first])
    }

    /// Copies the samples from `at` on; no more than the capacity.
    pub fn read(&self, at: i64, samples: &mut [i16]) {
        let (a, b) = self.slices(at, samples.len());
        samples[..a.len()].copy_from_slice(a);
        samples[a.len()..].copy_from_slice(b);
    }

    /// Makes room for `capacity`; what lies from `from` up to `to` stays, the rest is zero.
    pub fn grow(&mut self, from: i64, to: i64, capacity: usize) {
        let mut larger = Self::new(capacity);
        let (a, b) = self.slices(from, (to - from).clamp(0, self.ring.len() as i64) as usize);
        larger.write(from, a);
        larger.write(from + a.len() as i64, b);
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_also_below_zero() {
        let mut samples = Samples::new(7);
        samples.write(-3, &[1, 2, 3, 4, 5]);
        let mut read = [0; 5];
        samples.read(-3, &mut read);
        assert_eq!(read, [1, 2, 3, 4, 5]);
        samples.clear(-1, 1);
        samples.read(-3, &mut read);
        assert_eq!(read, [1, 2, 0, 0, 5]);
    }

    #[test]
    fn growing_keeps_what_is_held() {
        let mut samples = Samples::new(4);
        samples.write(6, &[1, 2, 3, 4]);
        samples.grow(7, 10, 8);
        let mut read = [9; 6];
        samples.read(5, &mut read);
        assert_eq!((samples.capacity(), read), (8, [0, 0, 2, 3, 4, 0]));
    }
}
