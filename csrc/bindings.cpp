// The pybind11 module: what was built, and the constants that tests and Python share with the kernels. Loading it
// registers the ops.
#include <pybind11/pybind11.h>

#include <string>

#include "common/polar.h"
#include "common/simd.h"
#include "ops/polar_iou/polar_iou.h"
#ifdef POLARMASK_SIMT
#include "simt.h"
#endif

namespace py = pybind11;

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Kernels of polarmask_ops.";
  m.def("build_info", [] {
    py::dict info;
    info["version"] = POLARMASK_VERSION;
    info["torch"] = POLARMASK_TORCH_VERSION;
    info["compiler"] = __VERSION__;
    info["cuda"] =
        std::string(POLARMASK_CUDA_VERSION).empty() ? py::object(py::none()) : py::str(POLARMASK_CUDA_VERSION);
    info["cuda_archs"] = POLARMASK_CUDA_ARCHS;
    return info;
  });
  m.attr("MIN_RAYS") = polarmask::kMinRays;
  m.attr("MAX_RAYS") = polarmask::kMaxRays;
  m.attr("POLAR_IOU_FLOOR") = polarmask::polar_iou::kPolarIouFloor;
  m.def("ray_direction", [](int64_t k, int64_t num_rays) {
    const auto u = polarmask::ray_direction(k, num_rays);
    return py::make_tuple(u.x, u.y);
  });
  m.attr("ISAS") = [] {
    py::list names;
    for (int isa = 0; isa <= static_cast<int>(polarmask::best_isa()); ++isa) names.append(polarmask::kIsaNames[isa]);
    return names;
  }();
  m.def("isa", [] { return polarmask::kIsaNames[static_cast<int>(polarmask::chosen_isa.load())]; });
  m.def("set_isa", [](const std::string& name) { polarmask::chosen_isa = polarmask::parse_isa(name); });
  if (const char* const name = std::getenv("POLARMASK_ISA")) polarmask::chosen_isa = polarmask::parse_isa(name);
#ifdef POLARMASK_SIMT
  m.def("emulate", [](bool emulate) { simt::emulating = emulate; });
  m.def("schedule", [](const std::string& text) { simt::schedule = simt::parse_schedule(text); });
#endif
}
