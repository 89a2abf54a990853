//! DateTime of TS 29.571: RFC 3339, here always in UTC and between the years 1970 and 9999.

use std::fmt::Write;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Reads a date and turns it to UTC. Bounded to the years that RFC 3339 can write back after the turn.
pub(crate) fn parse(text: &str) -> Result<OffsetDateTime, &'static str> {
    let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "is not an RFC 3339 date")?;
    let utc = date.checked_to_offset(UtcOffset::UTC).ok_or("is out of range")?;
    if (1970..=9999).contains(&utc.year()) { Ok(utc) } else { Err("is out of range") }
}

/// Writes a date in UTC, with as many fraction digits as it has. A date that RFC 3339 cannot hold is written as the
/// nearest one it can, so that writing never fails; reading never makes such a date.
pub(crate) fn write(out: &mut String, date: OffsetDateTime) {
    let utc = match date.checked_to_offset(UtcOffset::UTC) {
        Some(utc) if utc.year() > 9999 => return out.push_str("9999-12-31T23:59:59Z"),
        Some(utc) if utc.year() >= 1970 => utc,
        None if date.year() >= 9999 => return out.push_str("9999-12-31T23:59:59Z"),
        _ => OffsetDateTime::UNIX_EPOCH,
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second()
    );
    let (mut fraction, mut digits) = (utc.nanosecond(), 9_usize);
    if fraction != 0 {
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        let _ = write!(out, ".{fraction:0digits$}");
    }
    out.push('Z');
}

/// For `#[serde(with)]` on an optional date.
pub(crate) mod serde_option {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::OffsetDateTime;

    #[allow(clippy::ref_option)] // serde calls it so
    pub(crate) fn serialize<S: Serializer>(date: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match date {
            Some(date) => {
                let mut text = String::with_capacity(32);
                super::write(&mut text, *date);
                serializer.serialize_str(&text)
            }
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        super::parse(&text).map(Some).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn written(date: OffsetDateTime) -> String {
        let mut out = String::new();
        write(&mut out, date);
        out
    }

    #[test]
    fn dates_are_turned_to_utc_and_keep_their_fraction() {
        assert_eq!(written(parse("2026-12-01T02:00:00+02:00").unwrap()), "2026-12-01T00:00:00Z");
        assert_eq!(written(parse("2026-12-01T00:00:00.025Z").unwrap()), "2026-12-01T00:00:00.025Z");
        assert_eq!(written(parse("2026-12-01T00:00:00.000000001Z").unwrap()), "2026-12-01T00:00:00.000000001Z");
    }

    #[test]
    fn dates_at_the_edges_of_the_calendar_are_refused_and_never_panic() {
        for bad in [
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-12-01",
            "2026-12-01T00:00:00",
            "20261201T000000Z",
            "",
            "tomorrow",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(written(datetime!(-5-01-01 0:00 UTC)), "1970-01-01T00:00:00Z");
        assert_eq!(written(datetime!(9999-12-31 23:59:59 -1:00)), "9999-12-31T23:59:59Z");
    }

    proptest! {
        #[test]
        fn a_written_date_reads_back_the_same(seconds in 0_i64..253_402_300_800, nanoseconds in 0_u32..1_000_000_000) {
            let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap().replace_nanosecond(nanoseconds).unwrap();
            prop_assert_eq!(parse(&written(date)), Ok(date));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9TZ:.+-]{0,40}") {
            let _ = parse(&text);
        }
    }
}
