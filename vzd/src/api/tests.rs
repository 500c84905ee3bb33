//! Every refusal of the API is a 4xx with an `ApiError`.
