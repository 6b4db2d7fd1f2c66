//! The store's values as PostgreSQL has them.

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::super::{Error, Value, value::ColumnValue};

pub(super) fn refs<'a>(params: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Self::Int(value) => value.to_sql(ty, out),
            Self::Text(value) => value.to_sql(ty, out),
            Self::Uuid(value) => value.to_sql(ty, out),
            Self::Bytes(value) => value.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT, Type::UUID, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}

/// A column as it came.
struct Raw<'a>(ColumnValue<'a>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(
        ty: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *ty {
            Type::INT4 => ColumnValue::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => ColumnValue::Int(i64::from_sql(ty, raw)?),
            Type::UUID | Type::BYTEA => ColumnValue::Bytes(raw),
            _ => ColumnValue::Text(<&str>::from_sql(ty, raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(ColumnValue::Null))
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT, Type::VARCHAR, Type::UUID, Type::BYTEA].contains(ty)
    }
}

pub(in super::super) fn column(
    row: &tokio_postgres::Row,
    index: usize,
) -> Result<ColumnValue<'_>, Error> {
    row.try_get::<_, Raw<'_>>(index)
        .map(|Raw(value)| value)
        .map_err(|_| Error::Column { column: index })
}
