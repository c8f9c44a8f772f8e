//! What a host's link to the fabric is like: the conditions that a story asks for, and how they are kept.
//!
//! Conditions hold for each direction on its own: 10 % loss loses about 19 % of echo requests, and 20 ms delay makes a round
//! trip of 40 ms. They lie in a file of the host's directory, so that every program that opens the lab knows them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// MTU of a link that nothing else was said about.
pub(crate) const DEFAULT_MTU: u32 = 1500;
/// Below, the kernel takes IPv6 off a link (RFC 8200 section 5); above, no Ethernet is that wide.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=9000;
const FILE: &str = "link.json";

/// Conditions of a link; the default is a good one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// How long a frame takes.
    pub delay: Duration,
    /// Percent of packets that are lost.
    pub loss: f64,
    /// Percent of frames that later ones overtake.
    pub reorder: f64,
    /// Percent of frames that arrive twice.
    pub duplicate: f64,
    /// Most bits per second.
    pub rate: Option<Rate>,
    /// Largest packet; larger ones are answered with ICMP.
    pub mtu: Option<u32>,
    /// Largest packet; larger ones vanish without a word.
    pub black_hole: Option<u32>,
    /// Where the chances of reordering and duplication begin.
    pub seed: u64,
}

impl Link {
    /// Lets every frame take this long each way.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Loses this many percent of packets each way.
    #[must_use]
    pub fn loss(self, percent: f64) -> Self {
        Self { loss: percent, ..self }
    }

    /// Lets later frames overtake this many percent.
    #[must_use]
    pub fn reorder(self, percent: f64) -> Self {
        Self { reorder: percent, ..self }
    }

    /// Lets this many percent of frames arrive twice.
    #[must_use]
    pub fn duplicate(self, percent: f64) -> Self {
        Self { duplicate: percent, ..self }
    }

    /// Lets no more than `rate` pass each way.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Makes the link as narrow as `bytes`: the fabric answers what does not fit with ICMP.
    #[must_use]
    pub fn mtu(self, bytes: u32) -> Self {
        Self { mtu: Some(bytes), ..self }
    }

    /// Drops packets larger than `bytes` without a word, as a misconfigured tunnel on the way does.
    #[must_use]
    pub fn black_hole(self, bytes: u32) -> Self {
        Self { black_hole: Some(bytes), ..self }
    }

    /// Begins the chances of reordering and duplication elsewhere.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The part that the kernel has no means for.
    pub(crate) fn needs_wire(&self) -> bool {
        self.delay > Duration::ZERO || self.reorder > 0.0 || self.duplicate > 0.0
    }

    /// Whether a packet has to be one packet: the kernel hands on up to 64 KB at once, and would lose, turn round or
    /// measure them at once.
    pub(crate) fn needs_single_packets(&self) -> bool {
        self.loss > 0.0 || self.reorder > 0.0 || self.duplicate > 0.0 || self.black_hole.is_some()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let percentages = [("loss", self.loss), ("reorder", self.reorder), ("duplicate", self.duplicate)];
        if let Some((what, percent)) = percentages.iter().find(|(_, percent)| !(0.0..=100.0).contains(percent)) {
            return Err(Error::Unproven(format!("{what} is 0 to 100 percent, not {percent}")));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            let (least, most) = MTU_RANGE.into_inner();
            return Err(Error::Unproven(format!("an MTU of this lab is {least} to {most} bytes, not {mtu}")));
        }
        Ok(())
    }

    /// The conditions of the host whose directory this is.
    pub(crate) fn read(host_directory: &Path) -> Result<Self> {
        Self::read_file(&file(host_directory))
    }

    /// The conditions in a file; none are a good link.
    pub(crate) fn read_file(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Error::io(format!("read {}", path.display()))(error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Error::io(format!("understand {}", path.display()))(error.into())),
        }
    }

    pub(crate) fn write(&self, host_directory: &Path) -> Result<()> {
        let path = file(host_directory);
        let bytes = serde_json::to_vec(self).map_err(|error| Error::io("write conditions of a link")(error.into()))?;
        fs::write(&path, bytes).map_err(Error::io(format!("write {}", path.display())))
    }
}

/// Where the conditions of a host's link are kept.
pub(crate) fn file(host_directory: &Path) -> PathBuf {
    host_directory.join(FILE)
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |what: &str, percent: f64| (percent > 0.0).then(|| format!("{what} {percent} %"));
        let words = [
            (self.delay > Duration::ZERO).then(|| format!("delay {:?}", self.delay)),
            percent("loss", self.loss),
            percent("reorder", self.reorder),
            percent("duplicate", self.duplicate),
            self.rate.map(|rate| format!("rate {rate}")),
            self.mtu.map(|mtu| format!("mtu {mtu}")),
            self.black_hole.map(|bytes| format!("black hole above {bytes}")),
        ];
        let words: Vec<_> = words.into_iter().flatten().collect();
        formatter.write_str(if words.is_empty() { "good".into() } else { words.join(", ") }.as_str())
    }
}

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate(u64);

impl Rate {
    /// Millions of bits per second.
    #[must_use]
    pub fn megabits(count: u64) -> Self {
        Self(count.saturating_mul(1_000_000))
    }

    /// Bits per second.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = Error;

    /// Reads what `tc` calls a rate: `100mbit`, `1gbit`, `64kbit`.
    fn from_str(text: &str) -> Result<Self> {
        let (digits, unit) = text.split_at(text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len()));
        let unit = [("bit", 1), ("kbit", 1000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)]
            .iter()
            .find_map(|&(name, bits)| (name == unit).then_some(bits));
        let bits = digits.parse::<u64>().ok().zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
        let bits = bits.filter(|&bits| bits > 0);
        bits.map(Self).ok_or_else(|| {
            Error::Unproven(format!(
                "{text:?} is no rate: take a whole number and bit, kbit, mbit or gbit, as in 100mbit"
            ))
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}bit", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_tc_reads_it() {
        assert_eq!("100mbit".parse::<Rate>().unwrap(), Rate::megabits(100));
        assert_eq!("64kbit".parse::<Rate>().unwrap().to_string(), "64000bit");
        for wrong in ["", "100", "mbit", "-1mbit", "1.5mbit", "0mbit", "99999999999999gbit"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_no_link_can_be_is_refused() {
        for wrong in [Link::default().loss(101.0), Link::default().reorder(-1.0), Link::default().mtu(1279)] {
            assert!(wrong.check().is_err(), "{wrong}");
        }
        Link::default().loss(100.0).mtu(1280).check().unwrap();
    }

    #[test]
    fn conditions_are_kept_and_told() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Link::read(directory.path()).unwrap().to_string(), "good");
        let link = Link::default().delay(Duration::from_millis(20)).loss(1.5).rate(Rate::megabits(1)).mtu(1400);
        link.write(directory.path()).unwrap();
        assert_eq!(Link::read(directory.path()).unwrap(), link);
        assert_eq!(link.to_string(), "delay 20ms, loss 1.5 %, rate 1000000bit, mtu 1400");
    }
}
