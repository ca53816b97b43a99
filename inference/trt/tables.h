// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Code generated from abi/abi.txt by abi/cmd/trtabi. DO NOT EDIT.
//
// Slots of vtables, numbers of enumerations and bytes of structs of TensorRT, for
// each major version. -1: not in this major. docs/tensorrt-abi.md says more.
#ifndef FULMAR_TRT_TABLES_H
#define FULMAR_TRT_TABLES_H
#include <stdint.h>

enum { FL_M8, FL_M10, FL_M11, FL_MAJORS };

// The classes: implementations (the second word of a public object points to one), the
// parser's interfaces, and those that we make and the library calls.
enum fl_class {
	FL_C_Runtime, FL_C_HostMemory, FL_C_CudaEngine, FL_C_EngineInspector, FL_C_ExecutionContext, FL_C_Builder,
	FL_C_BuilderConfig, FL_C_TimingCache, FL_C_OptimizationProfile, FL_C_NetworkDefinition, FL_C_Tensor,
	FL_C_Layer, FL_C_Logger, FL_C_ProgressMonitor, FL_C_Int8Calibrator, FL_C_Parser, FL_C_ParserError, FL_CLASSES,
};
static const char *const fl_class_names[FL_CLASSES] = {
	"Runtime", "HostMemory", "CudaEngine", "EngineInspector", "ExecutionContext", "Builder", "BuilderConfig",
	"TimingCache", "OptimizationProfile", "NetworkDefinition", "Tensor", "Layer", "Logger", "ProgressMonitor",
	"Int8Calibrator", "Parser", "ParserError",
};
// How many slots a class's vtable has, in the newest minor version that was looked at.
static const int16_t fl_vtable_sizes[FL_MAJORS][FL_CLASSES] = {
	[FL_M8] = {
		22, 5, 55, 9, 51, 23, 60, 5, 10, 70, 25, 20, 3, -1, 7, 17, 8,
	},
	[FL_M10] = {
		24, 5, 59, 9, 54, 23, 68, 8, 12, 91, 25, 22, 3, 7, 9, 25, 12,
	},
	[FL_M11] = {
		23, 5, 51, 9, 53, 20, 60, 8, 10, 89, 19, 15, 5, 7, -1, 23, 12,
	},
};
// Slot of the deleting destructor in the vtable of the public object (its first word);
// -1: no public object, or not for a caller to delete.
static const int16_t fl_public_delete[FL_MAJORS][FL_CLASSES] = {
	[FL_M8] = {
		1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, -1,
	},
	[FL_M10] = {
		1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, -1,
	},
	[FL_M11] = {
		1, 1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, -1,
	},
};
// What getInterfaceInfo of the classes that we make has to return: kind, major, minor.
// 11: Logger ILogger 1 0
// 10: ProgressMonitor IProgressMonitor 1 0
// 11: ProgressMonitor IProgressMonitor 1 0
// 10: Int8Calibrator IInt8EntropyCalibrator2 1 0

// The methods. Methods that are called differently in different majors:
//   Runtime::deserializeCudaEngine 8: ptr(ptr,u64,ptr)  10: ptr(ptr,u64)  11: ptr(ptr,u64)
//   CudaEngine::getTensorShape 8: struct36(ptr)  10: struct72(ptr)  11: struct72(ptr)
//   CudaEngine::getProfileShape 8: struct36(ptr,i32,i32)  10: struct72(ptr,i32,i32)  11: struct72(ptr,i32,i32)
//   CudaEngine::createExecutionContext 8: ptr()  10: ptr(i32)  11: ptr(i32)
//   ExecutionContext::getTensorShape 8: struct36(ptr)  10: struct72(ptr)  11: struct72(ptr)
//   BuilderConfig::setMaxAuxStreams 8: void(i32)  10: void(i32)  11: bool(i32)
//   OptimizationProfile::setDimensions 8: bool(ptr,i32,struct36)  10: bool(ptr,i32,ptr)  11: bool(ptr,i32,ptr)
//   Tensor::getDimensions 8: struct36()  10: struct72()  11: struct72()
enum fl_method {
	FL_Runtime_deserializeCudaEngine, FL_Runtime_setDLACore, FL_Runtime_getNbDLACores, FL_HostMemory_data,
	FL_HostMemory_size, FL_CudaEngine_getNbIOTensors, FL_CudaEngine_getIOTensorName, FL_CudaEngine_getTensorShape,
	FL_CudaEngine_getTensorDataType, FL_CudaEngine_getTensorIOMode, FL_CudaEngine_getTensorFormat,
	FL_CudaEngine_getTensorLocation, FL_CudaEngine_getProfileShape, FL_CudaEngine_createExecutionContext,
	FL_CudaEngine_createExecutionContextWithoutDeviceMemory, FL_CudaEngine_getDeviceMemorySize,
	FL_CudaEngine_getDeviceMemorySizeV2, FL_CudaEngine_createEngineInspector,
	FL_EngineInspector_getEngineInformation, FL_ExecutionContext_setTensorAddress,
	FL_ExecutionContext_setInputShape, FL_ExecutionContext_getTensorShape, FL_ExecutionContext_enqueueV3,
	FL_ExecutionContext_setDeviceMemory, FL_ExecutionContext_setDeviceMemoryV2, FL_Builder_createBuilderConfig,
	FL_Builder_createNetworkV2, FL_Builder_createOptimizationProfile, FL_Builder_buildSerializedNetwork,
	FL_Builder_getNbDLACores, FL_Builder_setMaxThreads, FL_BuilderConfig_setFlag,
	FL_BuilderConfig_setMemoryPoolLimit, FL_BuilderConfig_setDefaultDeviceType, FL_BuilderConfig_setDLACore,
	FL_BuilderConfig_canRunOnDLA, FL_BuilderConfig_createTimingCache, FL_BuilderConfig_setTimingCache,
	FL_BuilderConfig_addOptimizationProfile, FL_BuilderConfig_setBuilderOptimizationLevel,
	FL_BuilderConfig_setProfilingVerbosity, FL_BuilderConfig_setProgressMonitor,
	FL_BuilderConfig_setInt8Calibrator, FL_BuilderConfig_setMaxAuxStreams, FL_TimingCache_serialize,
	FL_OptimizationProfile_setDimensions, FL_NetworkDefinition_getNbInputs, FL_NetworkDefinition_getInput,
	FL_NetworkDefinition_getNbOutputs, FL_NetworkDefinition_getNbLayers, FL_NetworkDefinition_getLayer,
	FL_Tensor_getName, FL_Tensor_getDimensions, FL_Layer_getName, FL_Logger_getAPILanguage,
	FL_Logger_getInterfaceInfo, FL_Logger_log, FL_ProgressMonitor_getAPILanguage,
	FL_ProgressMonitor_getInterfaceInfo, FL_ProgressMonitor_phaseStart, FL_ProgressMonitor_stepComplete,
	FL_ProgressMonitor_phaseFinish, FL_Int8Calibrator_getAPILanguage, FL_Int8Calibrator_getInterfaceInfo,
	FL_Int8Calibrator_getAlgorithm, FL_Int8Calibrator_getBatchSize, FL_Int8Calibrator_getBatch,
	FL_Int8Calibrator_readCalibrationCache, FL_Int8Calibrator_writeCalibrationCache, FL_Parser_parse,
	FL_Parser_getNbErrors, FL_Parser_getError, FL_Parser_delete, FL_ParserError_desc, FL_ParserError_node,
	FL_METHODS,
};
static const char *const fl_method_names[FL_METHODS] = {
	"Runtime::deserializeCudaEngine", "Runtime::setDLACore", "Runtime::getNbDLACores", "HostMemory::data",
	"HostMemory::size", "CudaEngine::getNbIOTensors", "CudaEngine::getIOTensorName", "CudaEngine::getTensorShape",
	"CudaEngine::getTensorDataType", "CudaEngine::getTensorIOMode", "CudaEngine::getTensorFormat",
	"CudaEngine::getTensorLocation", "CudaEngine::getProfileShape", "CudaEngine::createExecutionContext",
	"CudaEngine::createExecutionContextWithoutDeviceMemory", "CudaEngine::getDeviceMemorySize",
	"CudaEngine::getDeviceMemorySizeV2", "CudaEngine::createEngineInspector",
	"EngineInspector::getEngineInformation", "ExecutionContext::setTensorAddress",
	"ExecutionContext::setInputShape", "ExecutionContext::getTensorShape", "ExecutionContext::enqueueV3",
	"ExecutionContext::setDeviceMemory", "ExecutionContext::setDeviceMemoryV2", "Builder::createBuilderConfig",
	"Builder::createNetworkV2", "Builder::createOptimizationProfile", "Builder::buildSerializedNetwork",
	"Builder::getNbDLACores", "Builder::setMaxThreads", "BuilderConfig::setFlag",
	"BuilderConfig::setMemoryPoolLimit", "BuilderConfig::setDefaultDeviceType", "BuilderConfig::setDLACore",
	"BuilderConfig::canRunOnDLA", "BuilderConfig::createTimingCache", "BuilderConfig::setTimingCache",
	"BuilderConfig::addOptimizationProfile", "BuilderConfig::setBuilderOptimizationLevel",
	"BuilderConfig::setProfilingVerbosity", "BuilderConfig::setProgressMonitor",
	"BuilderConfig::setInt8Calibrator", "BuilderConfig::setMaxAuxStreams", "TimingCache::serialize",
	"OptimizationProfile::setDimensions", "NetworkDefinition::getNbInputs", "NetworkDefinition::getInput",
	"NetworkDefinition::getNbOutputs", "NetworkDefinition::getNbLayers", "NetworkDefinition::getLayer",
	"Tensor::getName", "Tensor::getDimensions", "Layer::getName", "Logger::getAPILanguage",
	"Logger::getInterfaceInfo", "Logger::log", "ProgressMonitor::getAPILanguage",
	"ProgressMonitor::getInterfaceInfo", "ProgressMonitor::phaseStart", "ProgressMonitor::stepComplete",
	"ProgressMonitor::phaseFinish", "Int8Calibrator::getAPILanguage", "Int8Calibrator::getInterfaceInfo",
	"Int8Calibrator::getAlgorithm", "Int8Calibrator::getBatchSize", "Int8Calibrator::getBatch",
	"Int8Calibrator::readCalibrationCache", "Int8Calibrator::writeCalibrationCache", "Parser::parse",
	"Parser::getNbErrors", "Parser::getError", "Parser::delete", "ParserError::desc", "ParserError::node",
};
static const int16_t fl_method_class[FL_METHODS] = {
	FL_C_Runtime, FL_C_Runtime, FL_C_Runtime, FL_C_HostMemory, FL_C_HostMemory, FL_C_CudaEngine, FL_C_CudaEngine,
	FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine,
	FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_CudaEngine, FL_C_EngineInspector,
	FL_C_ExecutionContext, FL_C_ExecutionContext, FL_C_ExecutionContext, FL_C_ExecutionContext,
	FL_C_ExecutionContext, FL_C_ExecutionContext, FL_C_Builder, FL_C_Builder, FL_C_Builder, FL_C_Builder,
	FL_C_Builder, FL_C_Builder, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig,
	FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig,
	FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_BuilderConfig, FL_C_TimingCache,
	FL_C_OptimizationProfile, FL_C_NetworkDefinition, FL_C_NetworkDefinition, FL_C_NetworkDefinition,
	FL_C_NetworkDefinition, FL_C_NetworkDefinition, FL_C_Tensor, FL_C_Tensor, FL_C_Layer, FL_C_Logger,
	FL_C_Logger, FL_C_Logger, FL_C_ProgressMonitor, FL_C_ProgressMonitor, FL_C_ProgressMonitor,
	FL_C_ProgressMonitor, FL_C_ProgressMonitor, FL_C_Int8Calibrator, FL_C_Int8Calibrator, FL_C_Int8Calibrator,
	FL_C_Int8Calibrator, FL_C_Int8Calibrator, FL_C_Int8Calibrator, FL_C_Int8Calibrator, FL_C_Parser, FL_C_Parser,
	FL_C_Parser, FL_C_Parser, FL_C_ParserError, FL_C_ParserError,
};
static const int16_t fl_slots[FL_MAJORS][FL_METHODS] = {
	[FL_M8] = {
		2, 3, 5, 2, 3, 45, 46, 34, 35, 38, 41, 36, 44, 11, 13, 14, -1, 33, 5, 32, 29, 30, 44, 11, -1, 9, 11, 12, 17,
		7, 20, 15, 47, 24, 22, 21, 44, 45, 29, 51, 31, -1, 8, 58, 2, 2, 19, 20, 21, 17, 18, 3, 5, 4, -1, -1, 0, -1,
		-1, -1, -1, -1, -1, -1, 4, 0, 1, 2, 3, 0, 6, 7, 10, 1, 5,
	},
	[FL_M10] = {
		3, 5, 7, 2, 3, 30, 31, 19, 20, 23, 26, 21, 29, 5, 6, 7, 52, 18, 6, 24, 21, 22, 37, 10, 49, 7, 8, 9, 14, 5,
		17, 11, 43, 20, 18, 17, 40, 41, 25, 47, 27, 56, 6, 54, 2, 2, 14, 15, 16, 12, 13, 3, 5, 4, -1, -1, 0, 0, 1, 4,
		5, 6, 0, 1, 8, 4, 5, 6, 7, 0, 5, 6, 9, 1, 5,
	},
	[FL_M11] = {
		3, 4, 6, 2, 3, 26, 27, 15, 16, 19, 22, 17, 25, 5, -1, -1, 44, 14, 6, 23, 20, 21, 36, 10, 48, 5, 6, 7, 11, 3,
		14, 9, 32, 18, 16, 15, 29, 30, 23, 36, 25, 45, -1, 43, 2, 2, 14, 15, 16, 12, 13, 3, 5, 4, 0, 1, 4, 0, 1, 4,
		5, 6, -1, -1, -1, -1, -1, -1, -1, 0, 3, 4, 7, 1, 5,
	},
};
// The least version that has it, major*10000 + minor*100 + patch; 0: all of the major that we take.
static const int32_t fl_since[FL_MAJORS][FL_METHODS] = {
	[FL_M8] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 80600, 0, 0, 0, 80600, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0,
	},
	[FL_M10] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100100, 0, 0, 0, 0, 0, 0, 0, 100100, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0,
	},
	[FL_M11] = {
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0,
	},
};

enum fl_value {
	FL_BuilderFlag_kFP16, FL_BuilderFlag_kINT8, FL_BuilderFlag_kGPU_FALLBACK,
	FL_BuilderFlag_kPREFER_PRECISION_CONSTRAINTS, FL_BuilderFlag_kTF32,
	FL_NetworkDefinitionCreationFlag_kEXPLICIT_BATCH, FL_NetworkDefinitionCreationFlag_kSTRONGLY_TYPED,
	FL_MemoryPoolType_kWORKSPACE, FL_MemoryPoolType_kDLA_MANAGED_SRAM, FL_DeviceType_kGPU, FL_DeviceType_kDLA,
	FL_TensorIOMode_kINPUT, FL_TensorIOMode_kOUTPUT, FL_TensorLocation_kDEVICE, FL_TensorLocation_kHOST,
	FL_DataType_kFLOAT, FL_DataType_kHALF, FL_DataType_kINT8, FL_DataType_kINT32, FL_DataType_kBOOL,
	FL_DataType_kUINT8, FL_DataType_kINT64, FL_OptProfileSelector_kMIN, FL_OptProfileSelector_kOPT,
	FL_OptProfileSelector_kMAX, FL_ProfilingVerbosity_kDETAILED, FL_LayerInformationFormat_kJSON,
	FL_CalibrationAlgoType_kENTROPY_CALIBRATION_2, FL_TensorFormat_kLINEAR, FL_Severity_kINTERNAL_ERROR,
	FL_Severity_kERROR, FL_Severity_kWARNING, FL_Severity_kINFO, FL_Severity_kVERBOSE,
	FL_ExecutionContextAllocationStrategy_kSTATIC, FL_ExecutionContextAllocationStrategy_kUSER_MANAGED,
	FL_APILanguage_kCPP, FL_VALUES,
};
static const int32_t fl_values[FL_MAJORS][FL_VALUES] = {
	[FL_M8] = {
		0, 1, 3, 11, 7, 0, -1, 0, 1, 0, 1, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, -1, 0, 1, 2, 2, 1, 2, 0, 0, 1, 2, 3, 4, -1,
		-1, -1,
	},
	[FL_M10] = {
		0, 1, 3, 10, 6, 0, 1, 0, 1, 0, 1, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, 8, 0, 1, 2, 2, 1, 2, 0, 0, 1, 2, 3, 4, 0, 2,
		0,
	},
	[FL_M11] = {
		-1, -1, 3, -1, 6, -1, 0, 0, 1, 0, 1, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, 8, 0, 1, 2, 2, 1, -1, 0, 0, 1, 2, 3, 4, 0,
		2, 0,
	},
};

// Structs that are passed by value, and their bytes.
enum fl_struct {
	FL_S_Dims, FL_S_InterfaceInfo, FL_STRUCTS,
};
static const int16_t fl_struct_sizes[FL_MAJORS][FL_STRUCTS] = {
	[FL_M8] = {
		36, -1,
	},
	[FL_M10] = {
		72, 16,
	},
	[FL_M11] = {
		72, 16,
	},
};
// 8: Dims has nbDims at 0, d at 4
// 10: Dims has nbDims at 0, d at 8
// 11: Dims has nbDims at 0, d at 8
// 10: InterfaceInfo has kind at 0, major at 8, minor at 12
// 11: InterfaceInfo has kind at 0, major at 8, minor at 12
// Bits of one element of Dims::d.
static const int16_t fl_dims_bits[FL_MAJORS] = {32, 64, 64};
#endif
