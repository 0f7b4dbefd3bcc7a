//! How long before their ticks packets come.

/// The slack's least is of so many parts of so many ticks each: 4 s.
const PARTS: usize = 8;
const PART_TICKS: u32 = 25;

/// How late packets came in the last seconds: arrival less timestamp, in samples, from an origin of the buffer's own.
#[derive(Debug, Clone)]
pub struct Slack {
    /// The latest of each part; the least number: none.
    parts: [i64; PARTS],
    /// The latest of all; the least number: none.
    latest: i64,
    /// What is usual: a mean that forgets.
    usual: Option<i64>,
    part: usize,
    ticks: u32,
    /// Parts since the beginning.
    age: usize,
}

impl Slack {
    pub fn new() -> Self {
        Self { parts: [i64::MIN; PARTS], latest: i64::MIN, usual: None, part: 0, ticks: 0, age: 0 }
    }

    #[inline]
    pub fn note(&mut self, transit: i64) {
        self.latest = self.latest.max(transit);
        self.parts[self.part] = self.parts[self.part].max(transit);
        self.usual = Some(self.usual.map_or(transit, |usual| usual + (transit - usual) / 16));
    }

    #[inline]
    pub fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks == PART_TICKS {
            self.ticks = 0;
            self.part = (self.part + 1) % PARTS;
            self.parts[self.part] = i64::MIN;
            self.latest = self.parts.into_iter().max().unwrap_or(i64::MIN);
            self.age += 1;
        }
    }

    /// The latest of all.
    #[inline]
    pub fn latest(&self) -> Option<i64> {
        Some(self.latest).filter(|latest| *latest != i64::MIN)
    }

    pub fn is_full(&self) -> bool {
        self.age >= PARTS
    }

    /// How much later than usual the latest came.
    pub fn spread(&self) -> i64 {
        self.usual.zip(self.latest()).map_or(0, |(usual, latest)| (latest - usual).max(0))
    }
}
