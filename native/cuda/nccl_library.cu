// Finding NCCL.
#include "core/failure.h"
#include "cuda/nccl.h"

namespace collimate::cuda {

bool NcclLibrary::bind_all() {
  return library_.bind(get_unique_id, "ncclGetUniqueId") && library_.bind(init, "ncclCommInitRankConfig") &&
         library_.bind(state, "ncclCommGetAsyncError") && library_.bind(finalize, "ncclCommFinalize") &&
         library_.bind(destroy, "ncclCommDestroy") && library_.bind(abort, "ncclCommAbort") &&
         library_.bind(send, "ncclSend") && library_.bind(receive, "ncclRecv") &&
         library_.bind(group_start, "ncclGroupStart") && library_.bind(group_end, "ncclGroupEnd");
}

NcclLibrary::NcclLibrary() {
  const LibraryChoice choice("COLLIMATE_NCCL");
  if (choice.is_off) {
    problem = "COLLIMATE_NCCL=off";
    return;
  }
  library_ = choice.path.empty() ? DynamicLibrary({"libnccl.so.2", "libnccl.so"}) : DynamicLibrary({choice.path});
  int (*get_version)(int*) = nullptr;
  int found = 0;
  if (library_.is_loaded() && library_.bind(get_version, "ncclGetVersion") && bind_all() &&
      get_version(&found) == kSuccess) {
    if (found >= static_cast<int>(Config().version)) {
      version = found;
      return;
    }
    problem = "version " + std::to_string(found) + " is older than 2.14";
  } else {
    problem = library_.problem();
  }
  if (choice.is_required)
    fail_bad_input("COLLIMATE_NCCL=" + choice.text + ": NCCL cannot be used (" + problem +
                   "); install it (libnccl2, or the nvidia-nccl wheel with its lib folder in LD_LIBRARY_PATH), or set "
                   "it to auto or off");
}

}  // namespace collimate::cuda
