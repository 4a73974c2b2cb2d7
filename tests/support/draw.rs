//! Samples drawn by a seed, so that the same can be drawn again.

use std::time::{SystemTime, UNIX_EPOCH};

use super::setting;

/// Numbers from a seed (splitmix64).
pub struct Draw {
    seed: u64,
    state: u64,
}

impl Draw {
    /// By the seed that an environment variable has, otherwise by another one each time. Prints
    /// it, with what is drawn.
    pub fn seeded(variable: &str, what: &str) -> Self {
        let seed = setting(variable).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
        });
        println!("{variable}={seed}: {what}");
        Self { seed, state: seed }
    }

    /// What it began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below a limit that is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    /// One of the items, unless there are none.
    pub fn of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len())])
    }

    /// So many of them, none twice, or all where there are fewer.
    pub fn sample<T>(&mut self, mut all: Vec<T>, count: usize) -> Vec<T> {
        let count = count.min(all.len());
        (0..count).map(|_| all.swap_remove(self.below(all.len()))).collect()
    }
}
