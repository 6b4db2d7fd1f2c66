//! Lists a page at a time.

use serde::Deserialize;

/// How many rows of a list to return: 1 to 200, 50 if nobody says.
#[derive(Copy, Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "i64")]
pub struct Limit(i64);

impl Limit {
    /// Returns the number of rows to ask for: one more than the page, to know whether it is the last.
    #[must_use]
    pub fn and_one(self) -> i64 {
        self.0 + 1
    }

    /// Cuts the extra row off and returns the page's last row if there was one: where the next page begins.
    pub fn cut<T>(self, rows: &mut Vec<T>) -> Option<&T> {
        let page = usize::try_from(self.0).unwrap_or(0);
        let more = rows.len() > page;
        rows.truncate(page);
        if more { rows.last() } else { None }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl TryFrom<i64> for Limit {
    type Error = &'static str;

    fn try_from(limit: i64) -> Result<Self, &'static str> {
        if (1..=200).contains(&limit) { Ok(Self(limit)) } else { Err("limit is 1 to 200") }
    }
}
