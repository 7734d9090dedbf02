//! Texts of people and other programs that are kept and shown: names, references, reasons.

use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::UnicodeNormalization;

/// The longest reason, in characters.
pub const MOST_OF_A_REASON: usize = 500;

/// What is shown as it is stored: trimmed, in NFC (so that what looks the same is the same), 1 to `most` characters
/// of which none hides. None for any other text.
#[must_use]
pub fn visible(text: &str, most: usize) -> Option<String> {
    // Nothing is normalised that is too long in any form: NFC is at most three times as short.
    let text = Some(text.trim()).filter(|text| text.len() <= most.saturating_mul(12) && is_visible(text))?;
    let normal: String = text.nfc().collect();
    (1..=most).contains(&normal.chars().count()).then_some(normal)
}

/// Whether every character is seen: no controls, none of format (which turn the writing round, or join and part
/// letters without a trace), none for private use or not assigned, and none that is left out where it is shown.
#[must_use]
pub fn is_visible(text: &str) -> bool {
    text.chars().all(is_seen)
}

/// The text with an escape like `\u{1b}` for each character that is not seen: a terminal or a log does nothing of it.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        if is_seen(one) {
            escaped.push(one);
        } else {
            escaped.extend(one.escape_default());
        }
    }
    escaped
}

fn is_seen(one: char) -> bool {
    let hides = matches!(
        get_general_category(one),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::Surrogate
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    !hides && !is_ignorable(one)
}

/// Unicode's Default_Ignorable_Code_Point, as far as the categories do not have it.
fn is_ignorable(one: char) -> bool {
    matches!(one,
        '\u{034F}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{E0100}'..='\u{E01EF}')
}

/// Why somebody does what others will read about.
#[must_use]
pub fn reason(text: &str) -> Option<String> {
    visible(text, MOST_OF_A_REASON)
}

/// As [`reason`], for the command line.
///
/// # Errors
/// What it must be instead.
pub fn parse_reason(text: &str) -> Result<String, String> {
    reason(text).ok_or_else(|| format!("must be 1 to {MOST_OF_A_REASON} visible characters"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_is_what_can_be_read() {
        assert_eq!(reason("  a test of the sender ").as_deref(), Some("a test of the sender"));
        assert!(reason(&"ä".repeat(500)).is_some());
        for bad in ["", "  ", "a\nb", "a\0b", "a\u{1b}[31mb", &"x".repeat(501)] {
            assert!(reason(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn what_looks_the_same_is_the_same() {
        assert_eq!(visible(" Caf\u{65}\u{301} ", 4).as_deref(), Some("Caf\u{e9}"));
        assert_eq!(visible("\u{212B}", 1).as_deref(), Some("\u{C5}"));
        for good in
            ["C-1001", "\u{418}\u{432}\u{430}\u{43D}", "\u{20AC}", "a b", "\u{5D0}\u{5D1}", "\u{1F600}", "\u{5BA2}"]
        {
            assert_eq!(visible(good, 64).as_deref(), Some(good));
        }
    }

    #[test]
    fn what_hides_is_refused_wherever_it_stands() {
        for hidden in [
            "\u{0}",
            "\u{7}",
            "\n",
            "\u{7F}",
            "\u{85}",
            "\u{AD}",
            "\u{34F}",
            "\u{61C}",
            "\u{115F}",
            "\u{180E}",
            "\u{200B}",
            "\u{200D}",
            "\u{200E}",
            "\u{2028}",
            "\u{2029}",
            "\u{202E}",
            "\u{2060}",
            "\u{2066}",
            "\u{2069}",
            "\u{3164}",
            "\u{E000}",
            "\u{FE0F}",
            "\u{FEFF}",
            "\u{FFA0}",
            "\u{FFF9}",
            "\u{FFFF}",
            "\u{378}",
            "\u{E0041}",
            "\u{E0100}",
            "\u{10FFFD}",
        ] {
            let alone = hidden.trim().to_owned();
            for text in [format!("a{hidden}b"), alone.clone(), format!("a{alone}b{alone}c{hidden}d")] {
                assert_eq!(visible(&text, 64), None, "{}", text.escape_unicode());
            }
        }
        assert_eq!(visible("", 5), None);
        assert_eq!(visible("  ", 5), None);
        assert_eq!(visible("abcdef", 5), None);
        assert_eq!(visible(&"e\u{301}".repeat(5), 5).map(|text| text.chars().count()), Some(5));
        assert_eq!(visible(&"a\u{301}\u{301}\u{301}\u{301}".repeat(50_000), 5), None);
    }

    proptest! {
        #[test]
        fn what_was_taken_once_stays_as_it_is(text in "\\PC{0,80}") {
            if let Some(taken) = visible(&text, 64) {
                prop_assert_eq!(visible(&taken, 64), Some(taken));
            }
        }
    }
}
