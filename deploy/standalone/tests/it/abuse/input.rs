//! Slots under attack: never more than there are, and all free when everybody has gone, however they went.
