//! Numbers as people read them.

use std::time::Duration;

/// An age in its two largest units: `850ms`, `12s`, `3m12s`, `5h04m`, `9d3h`.
pub(crate) fn age(seconds: f64) -> String {
    // Negative, endless or not a number: a daemon of another kind.
    let Ok(age) = Duration::try_from_secs_f64(seconds) else { return "?".to_owned() };
    let whole = age.as_secs();
    match whole {
        0 => format!("{}ms", age.as_millis()),
        1..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Bytes in binary units: `512 B`, `1.4 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A round trip in milliseconds: `0.21 ms`, `12.3 ms`, `140 ms`.
pub(crate) fn round_trip(microseconds: u64) -> String {
    let milliseconds = microseconds as f64 / 1000.0;
    let decimals = match microseconds {
        0..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    format!("{milliseconds:.decimals$} ms")
}

/// A share from 0 to 1: `33.3%`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Text of another machine, without what could steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_show_two_units() {
        let cases = [
            (0.0, "0ms"),
            (0.8504, "850ms"),
            (59.9, "59s"),
            (192.0, "3m12s"),
            (18_240.0, "5h04m"),
            (788_400.0, "9d3h"),
            (-1.0, "?"),
            (f64::NAN, "?"),
            (f64::INFINITY, "?"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn bytes_grow_through_binary_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_468_006, "1.4 MiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn round_trips_keep_three_digits() {
        assert_eq!([210, 12_340, 140_400].map(round_trip), ["0.21 ms", "12.3 ms", "140 ms"]);
        assert_eq!(percent(1.0 / 3.0), "33.3%");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
