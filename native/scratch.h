// Memory of one thread that grows and is used again, aligned to cache lines.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace lapidist {

class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(data_); }

    // Room for `count` elements; what an earlier call gave is void.
    template <typename T>
    T* reserve(size_t count) {
        const size_t bytes = (count * sizeof(T) + kLine - 1) / kLine * kLine;
        if (bytes > bytes_) {
            std::free(data_);
            bytes_ = 0;
            data_ = std::aligned_alloc(kLine, bytes);
            if (data_ == nullptr) throw std::bad_alloc();
            bytes_ = bytes;
        }
        return static_cast<T*>(data_);
    }

  private:
    static constexpr size_t kLine = 64;
    void* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace lapidist
