#include "binding/budget_checks.h"

#include "binding/checks.h"
#include "binding/device.h"

namespace elastic {
namespace {

using budget::Field;
using budget::STATE_WIDTH;

// Kernels move a row's state as two 16-byte words.
bool is_aligned(const at::Tensor& state) {
  return !runs_on_cuda(state) || state.numel() == 0 ||
         reinterpret_cast<uintptr_t>(state.const_data_ptr()) % 16 == 0;
}

// In the order of budget::Field.
constexpr const char* FIELD_NAMES[] = {"the budget",
                                       "the phase",
                                       "the last phase",
                                       "the finish reason",
                                       "the end from outside",
                                       "the bytes of a character in progress",
                                       "the white space tokens",
                                       "the tokens waited",
                                       "the marker match",
                                       "the thinking tokens",
                                       "the solution tokens",
                                       "the extensions",
                                       "the notices",
                                       "the match behind a cut",
                                       "the column of the forced token"};
static_assert(std::size(FIELD_NAMES) == size_t(Field::NONE));

}  // namespace

budget::Tables checked_tables(const char* op, const at::Tensor& tables, const at::Tensor* token_flags,
                              const at::Tensor& beside) {
  TORCH_CHECK_VALUE(tables.dim() == 2 && tables.size(0) > 0 && tables.size(1) >= budget::HEADER_WIDTH, op,
                    ": tables: expected at least one row of at least ", int(budget::HEADER_WIDTH),
                    " columns, got ", describe(tables));
  expect(op, "tables", tables, tables.sizes(), at::kInt, beside);
  budget::Tables out{tables.const_data_ptr<int32_t>(), nullptr, tables.size(0), tables.size(1), 0};
  if (token_flags != nullptr) {
    expect(op, "token_flags", *token_flags, {token_flags->numel()}, at::kLong, beside);
    out.token_flags = token_flags->const_data_ptr<int64_t>();
    out.vocab = token_flags->size(0);
  }
  return out;
}

void check_alignment(const char* op, const at::Tensor& state) {
  TORCH_CHECK_VALUE(is_aligned(state), op, ": state: expected rows aligned to 16 bytes, got storage offset ",
                    state.storage_offset());
}

void check_state(const char* op, const at::Tensor& state, int64_t rows, const budget::Tables& tables,
                 const at::Tensor& beside) {
  expect(op, "state", state, {rows, STATE_WIDTH}, at::kInt, beside);
  check_alignment(op, state);
  if (runs_on_cuda(state)) return;
  for (int64_t r = 0; r < rows; r++) {
    const budget::Row row = budget::load(state.const_data_ptr<int32_t>() + r * STATE_WIDTH);
    const auto [field, range] = budget::misfit(row, tables);
    if (field == Field::NONE) continue;
    const char* hole = "";
    if (field == Field::FORCED && range.most > 0) hole = ", at no end of a text";
    if (field == Field::MATCH && range.most > 0 && row.phase < budget::CLOSING)
      hole = ", with no complete marker";
    TORCH_CHECK_VALUE(false, op, ": state: expected ", FIELD_NAMES[int(field)], " of row ", r, " from ",
                      range.least, " to ", range.most, hole, ", got ", range.value);
  }
}

at::Tensor readable_state(const char* op, const at::Tensor& state, int64_t rows, const budget::Tables& tables,
                          const at::Tensor& beside) {
  const at::Tensor readable = is_aligned(state) ? state : state.clone();
  check_state(op, readable, rows, tables, beside);
  return readable;
}

}  // namespace elastic
