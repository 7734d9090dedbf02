//! Ranges of days.

use time::Date;

/// The same days, each once.
pub(super) fn merged(ranges: impl Iterator<Item = (Date, Date)>) -> Vec<(Date, Date)> {
    let mut sorted: Vec<_> = ranges.collect();
    sorted.sort_unstable();
    let mut merged: Vec<(Date, Date)> = Vec::new();
    for (from, to) in sorted {
        match merged.last_mut() {
            Some(last) if last.1.next_day().is_none_or(|next| from <= next) => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// What of `ranges` lies in `bounds`.
pub(super) fn within(ranges: &[(Date, Date)], bounds: (Date, Date)) -> Vec<(Date, Date)> {
    let cut = ranges.iter().map(|(from, to)| ((*from).max(bounds.0), (*to).min(bounds.1)));
    cut.filter(|(from, to)| from <= to).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn each_day_is_looked_at_once() {
        let (first, week, far) = (date!(2026 - 11 - 01), date!(2026 - 11 - 07), date!(2030 - 01 - 01));
        let next = (date!(2026 - 11 - 08), date!(2026 - 11 - 09));
        let all = [(far, far), (first, week), (week, week), next, (first, first)];
        assert_eq!(merged(all.into_iter()), [(first, next.1), (far, far)]);
        assert_eq!(within(&[(first, next.1), (far, far)], (week, next.0)), [(week, next.0)]);
        assert_eq!(merged([(Date::MAX, Date::MAX), (Date::MAX, Date::MAX)].into_iter()), [(Date::MAX, Date::MAX)]);
    }
}
