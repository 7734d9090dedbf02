//! Texts that people give: a reason, a name.

/// The longest reason, in characters.
pub const MOST_OF_A_REASON: usize = 500;

/// A text without the blanks around it, where that is 1 to `most` visible characters.
#[must_use]
pub fn visible(text: &str, most: usize) -> Option<&str> {
    let text = text.trim();
    ((1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)).then_some(text)
}

/// Why somebody does what others will read about.
#[must_use]
pub fn reason(text: &str) -> Option<&str> {
    visible(text, MOST_OF_A_REASON)
}

/// As [`reason`], for the command line.
///
/// # Errors
/// What it must be instead.
pub fn parse_reason(text: &str) -> Result<String, String> {
    reason(text).map(str::to_owned).ok_or_else(|| format!("must be 1 to {MOST_OF_A_REASON} visible characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_what_can_be_read() {
        assert_eq!(reason("  a test of the sender "), Some("a test of the sender"));
        assert!(reason(&"ä".repeat(500)).is_some());
        for bad in ["", "  ", "a\nb", "a\0b", "a\u{1b}[31mb", &"x".repeat(501)] {
            assert!(reason(bad).is_none(), "{bad:?}");
        }
    }
}
