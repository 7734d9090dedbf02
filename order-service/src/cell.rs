//! Which of the cells of its installation this order-service is of: each has a database of its own, and they share a topic.
//! The database keeps it from the first start on.

use shared::runtime::{config::Reader, database::Pool};

/// Where messages come from that one that is alone announces, and the first cell of several.
pub const SOURCE: &str = "/order-service";

/// What each cell costs a reader of progress bounds it, not the numbers.
const MOST: i32 = 1000;

/// The order numbers of cells begin behind this one, so that they meet none of an installation that was alone before:
/// those are 1, 2, 3 and so on.
const BEFORE_THE_FIRST: i64 = 1_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    number: i32,
    /// How many there may ever be.
    count: i32,
}

/// Why a database cannot be used, for the operator.
#[derive(Debug, thiserror::Error)]
#[error(
    "cell.number, cell.count: this database is of cell {} of {}, not of {} of {}: order numbers of two cells would meet",
    .kept.number, .kept.count, .set.number, .set.count
)]
pub struct OfAnother {
    kept: Cell,
    set: Cell,
}

/// Whether those who count know of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Known,
    /// They have to hear of it before its first order: else they call complete what has orders of it missing.
    New,
}

impl Cell {
    pub fn read(s: &mut Reader) -> Self {
        let count = s.within("cell.count", 1..=MOST, format_args!("from 1 to {MOST}"));
        let is_one_of_them = |number: &i32| {
            if (1..=count).contains(number) { Ok(()) } else { Err("must be from 1 to cell.count".into()) }
        };
        Self { number: s.checked("cell.number", is_one_of_them), count }
    }

    /// Where its messages come from, and under which it tells of its progress.
    #[must_use]
    pub fn source(self) -> &'static str {
        // A process has one cell, for as long as it runs.
        if self.number == 1 { SOURCE } else { format!("{SOURCE}/{}", self.number).leak() }
    }

    /// An order's number is what the sequence gives times the first, plus the second.
    #[must_use]
    pub fn numbering(self) -> (i64, i64) {
        if self.count == 1 {
            return (1, 0);
        }
        let count = i64::from(self.count);
        (count, BEFORE_THE_FIRST + i64::from(self.number) - count)
    }

    /// Keeps it if the database has none yet. One that was alone may become the first of several.
    ///
    /// # Errors
    /// Outer: the database did not answer. Inner: it is of another cell.
    pub async fn keep(self, pool: &Pool) -> Result<Result<Standing, OfAnother>, sqlx::Error> {
        sqlx::query!(
            r#"
            WITH kept AS (
                INSERT INTO cell (number, count)
                -- Where numbers were drawn before, they are those of one that is alone.
                SELECT CASE WHEN drawn IS NULL THEN $1 ELSE 1 END, CASE WHEN drawn IS NULL THEN $2 ELSE 1 END
                FROM pg_sequence_last_value('order_number') AS drawn
                ON CONFLICT (is_only) DO NOTHING
                RETURNING pg_sequence_last_value('order_number') IS NULL AS is_unused
            )
            UPDATE told_counts SET since = minute, next_minute = minute
            FROM kept, date_trunc('minute', now(), 'UTC') AS minute
            WHERE is_unused
            "#,
            self.number,
            self.count
        )
        .execute(pool)
        .await?;
        sqlx::query!(
            r#"
            UPDATE cell SET count = $2, known_at = (SELECT max(told_at) FROM announced)
            WHERE (number, count) = (1, 1) AND $1 = 1 AND $2 > 1
            "#,
            self.number,
            self.count
        )
        .execute(pool)
        .await?;
        let row = sqlx::query!(r#"SELECT number, count, known_at IS NOT NULL AS "is_known!" FROM cell"#);
        let row = row.fetch_one(pool).await?;
        let kept = Self { number: row.number, count: row.count };
        Ok(if kept != self {
            Err(OfAnother { kept, set: self })
        } else if self.count == 1 || row.is_known {
            Ok(Standing::Known)
        } else {
            Ok(Standing::New)
        })
    }

    /// That of a database. One that was never started is of none, and has no messages.
    ///
    /// # Errors
    /// The database's.
    pub async fn of(pool: &Pool) -> Result<Self, sqlx::Error> {
        let row = sqlx::query!("SELECT number, count FROM cell").fetch_optional(pool).await?;
        Ok(row.map_or(Self { number: 1, count: 1 }, |row| Self { number: row.number, count: row.count }))
    }
}

/// Whether it was told that there is this cell.
///
/// # Errors
/// The database's.
pub async fn is_known(pool: &Pool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT known_at IS NOT NULL AS "is_known!" FROM cell"#).fetch_one(pool).await
}

/// It was told that there is this cell.
///
/// # Errors
/// The database's.
pub async fn note_known(pool: &Pool) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE cell SET known_at = now() WHERE known_at IS NULL").execute(pool).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_that_is_alone_has_the_numbers_and_the_source_it_always_had() {
        let alone = Cell { number: 1, count: 1 };
        assert_eq!((alone.numbering(), alone.source()), ((1, 0), "/order-service"));
    }

    /// Holds: No two cells of an installation have an order number in common.
    #[test]
    fn the_order_numbers_of_cells_are_disjoint_and_none_is_of_one_that_was_alone() {
        let numbers = |number| {
            let (times, plus) = Cell { number, count: 16 }.numbering();
            (1..=1000).map(move |drawn| drawn * times + plus)
        };
        let all: BTreeSet<i64> = (1..=16).flat_map(numbers).collect();
        assert_eq!(all.len(), 16_000);
        assert_eq!(all.first(), Some(&1_000_000_000_001));
    }

    #[test]
    fn the_first_cell_has_the_source_of_one_that_is_alone() {
        assert_eq!(Cell { number: 1, count: 3 }.source(), "/order-service");
        assert_eq!(Cell { number: 3, count: 3 }.source(), "/order-service/3");
    }
}
