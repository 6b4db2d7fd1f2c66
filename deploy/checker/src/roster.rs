//! Who is who: the owner of all projects, their members, who leaves them, and a stranger.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::scenario::Scenario;

/// Somebody with a token.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct User(pub(crate) usize);

/// Makes all projects and looks after them.
pub(crate) const OWNER: User = User(0);
/// A member of a project of their own and of no other.
pub(crate) const STRANGER: User = User(1);
const FIRST_MEMBER: usize = 2;

/// Everybody, by what a scenario has of everything.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Roster {
    projects: usize,
    members: usize,
    leavers: usize,
}

impl User {
    pub(crate) fn name(self) -> String {
        format!("user-{}", self.0)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        name.strip_prefix("user-")?.parse().ok().map(Self)
    }

    pub(crate) fn token(self) -> String {
        format!("the-token-of-user-{}", self.0)
    }
}

impl Roster {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let Scenario { projects, members, removals, .. } = *scenario;
        Self { projects, members, leavers: removals }
    }

    /// Returns a project's member of that number. Neighbouring projects share half of their members.
    pub(crate) fn member(self, project: usize, member: usize) -> User {
        User(FIRST_MEMBER + (project * self.step() + member) % self.member_users())
    }

    /// Returns all memberships: projects and users.
    pub(crate) fn members(self) -> impl Iterator<Item = (usize, User)> {
        let of_project = move |project| {
            (0..self.members).map(move |member| (project, self.member(project, member)))
        };
        (0..self.projects).flat_map(of_project).chain(self.leavers())
    }

    /// Returns who will be removed, and from where.
    pub(crate) fn leavers(self) -> impl Iterator<Item = (usize, User)> {
        let first = FIRST_MEMBER + self.member_users();
        (0..self.leavers).map(move |leaver| (leaver % self.projects, User(first + leaver)))
    }

    /// Returns whose the stream of that number is, and of which project.
    pub(crate) fn stream(self, number: usize) -> (usize, User) {
        let project = number % self.projects;
        (project, self.member(project, number / self.projects % self.members))
    }

    /// Writes the file of users that the services read.
    pub(crate) fn write(self, file: &Path) -> anyhow::Result<()> {
        let count = FIRST_MEMBER + self.member_users() + self.leavers;
        let user = |user: User| json!({"user": user.name(), "token": user.token()});
        let users: Vec<Value> = (0..count).map(|number| user(User(number))).collect();
        fs::write(file, serde_json::to_vec(&users)?)?;
        Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
    }

    fn member_users(self) -> usize {
        self.members.max(self.projects * self.step())
    }

    fn step(self) -> usize {
        self.members.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_distinct_members_and_a_user_is_in_several() {
        for (projects, members) in [(1, 1), (1, 5), (2, 1), (3, 4), (10, 7)] {
            let roster = Roster { projects, members, leavers: 3 };
            let mut all: Vec<(usize, usize)> = roster.members().map(|(p, u)| (p, u.0)).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), projects * members + 3);
            for number in 0..50 {
                let (project, user) = roster.stream(number);
                assert!(all.contains(&(project, user.0)));
            }
        }
        let roster = Roster { projects: 3, members: 4, leavers: 0 };
        assert_eq!(roster.member(0, 2), roster.member(1, 0));
        assert_eq!(User::named(&STRANGER.name()), Some(STRANGER));
    }
}
