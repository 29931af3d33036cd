"""Our GraphQL documents are valid in the schema of the installed Dagster."""

import graphql
import pytest
from dagster_graphql.schema import create_schema

from resources.dagster import queries as dagster_queries

DOCUMENTS = {
    name: text
    for name, text in vars(dagster_queries).items()
    if name.isupper() and isinstance(text, str)
}


@pytest.fixture(scope="module")
def schema() -> graphql.GraphQLSchema:
    found: graphql.GraphQLSchema = create_schema().graphql_schema
    return found


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_the_installed_dagster_takes_the_document(name: str, schema: graphql.GraphQLSchema) -> None:
    assert graphql.validate(schema, graphql.parse(DOCUMENTS[name])) == []


def test_every_document_is_looked_at() -> None:
    assert sorted(DOCUMENTS) == [
        "ACTIVE_RUNS",
        "ASSET",
        "LAUNCH",
        "RELOAD",
        "RUN_EVENTS",
        "RUN_STATUS",
        "TERMINATE",
    ]
