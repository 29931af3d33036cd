"""The GraphQL documents of ``resources.dagster.client``; a contract test holds them to the schema."""

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""

RUN_STATUS = """
query RunStatus($run: ID!) {
  runOrError(runId: $run) {
    __typename
    ... on Run { status tags { key value } }
    ... on Error { message }
  }
}
"""

ACTIVE_RUNS = """
query ActiveRuns($limit: Int!) {
  runsOrError(
    filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: $limit
  ) {
    __typename
    ... on Runs {
      results { runId status creationTime pipelineName assetSelection { path } }
    }
    ... on Error { message }
  }
}
"""

RUN_EVENTS = """
query RunEvents($run: ID!, $cursor: String, $limit: Int) {
  logsForRun(runId: $run, afterCursor: $cursor, limit: $limit) {
    __typename
    ... on Error { message }
    ... on EventConnection {
      cursor
      hasMore
      events {
        __typename
        ... on MaterializationEvent {
          partition
          assetKey { path }
          metadataEntries { ...Entry }
        }
        ... on ExecutionStepFailureEvent {
          message
          error { ...Raised }
          failureMetadata { description metadataEntries { ...Entry } }
        }
        ... on RunFailureEvent { message error { ...Raised } }
        ... on LogMessageEvent { message }
      }
    }
  }
}
fragment Raised on PythonError { className message causes { className message } }
fragment Entry on MetadataEntry {
  label
  ... on IntMetadataEntry { intRepr }
  ... on FloatMetadataEntry { floatValue }
  ... on TextMetadataEntry { text }
  ... on JsonMetadataEntry { jsonString }
  ... on BoolMetadataEntry { boolValue }
  ... on UrlMetadataEntry { url }
  ... on PathMetadataEntry { path }
}
"""

ASSET = """
query Asset($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    __typename
    ... on AssetNode {
      isMaterializable
      opVersion
      partitionDefinition { fmt }
      assetPartitionStatuses {
        ... on TimePartitionStatuses { ranges { startKey endKey status } }
      }
    }
  }
}
"""

RELOAD = """
mutation Reload($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    __typename
    ... on WorkspaceLocationEntry {
      locationOrLoadError { __typename ... on PythonError { message } }
    }
    ... on Error { message }
  }
}
"""

TERMINATE = """
mutation Terminate($run: String!) {
  terminateRun(runId: $run) {
    __typename
    ... on TerminateRunFailure { message }
    ... on Error { message }
  }
}
"""
